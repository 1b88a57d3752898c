"""What was here is `pageantry.acl`, as others need it, too."""

from ..acl import append, create, make_folder, others

__all__ = ["append", "create", "make_folder", "others"]
