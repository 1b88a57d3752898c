"""The recipes of docs/bridging.md, where each is run, and the sections of other pages."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

#: By test_bridging_page.py, on UNIX.
ON_UNIX = (
    "An agent in a container",
    "The agent of another computer",
    "Several agents as one",
    "Only signatures, or what rules allow",
    "Who asks for what",
)
#: By interop/test_pages_on_windows.py, and by interop/test_linux_beside_windows.py.
ON_WINDOWS = (
    "Pageant at OpenSSH's pipe",
    "Pageant at a pipe that only OpenSSH looks at",
    "OpenSSH's agent as Pageant",
    "GnuPG's agent as a Cygwin socket",
    "Several agents as one",
)
ON_BOTH = ("An agent of Windows' in WSL 2",)


def sections(name: str = "bridging.md") -> dict[str, str]:
    """A page's texts by their titles."""
    page = (DOCS / name).read_text("utf-8")
    titled = re.split(r"^##+ (.*)\n", page, flags=re.MULTILINE)[1:]
    return dict(zip(titled[::2], titled[1::2], strict=True))


def lines(title: str, kind: str, page: str = "bridging.md") -> list[str]:
    """The lines of a section's blocks of this kind."""
    return "".join(re.findall(rf"```{kind}\n(.*?)```", sections(page)[title], re.DOTALL)).splitlines()
