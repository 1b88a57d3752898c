"""What was here is `pageantry.acl`, as others need it, too."""

import sys

if sys.platform == "win32":
    from ..acl import append, create, make_folder, others

    __all__ = ["append", "create", "make_folder", "others"]
