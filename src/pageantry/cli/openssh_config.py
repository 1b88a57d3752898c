"""The line that leads OpenSSH to our agent, in a file that `~/.ssh/config` includes: Pageant's `--openssh-config`."""

from __future__ import annotations

import errno
import os
import sys

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

#: Bytes that OpenSSH for Windows keeps of an agent's path, its NUL included.
_MAX_PATH: Final = 108


class Config:
    """The file at `path`. `lead` writes the line and `close` takes it away again; nothing else is ever overwritten."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(os.path.expanduser(path))
        self._written = b""

    def lead(self, place: str) -> str:
        """Have OpenSSH use the agent at `place`, a path or a pipe's; what the person should know, or nothing.

        Raises `Error` where the file has other settings, where it cannot be written, or where `place` cannot be said.
        """
        line = _line(place)
        self.check()
        try:
            self._write(line)
        except OSError as error:
            raise Error(f"{self.path} cannot be written: {error.strerror or error}", "give another file") from None
        self._written = line
        if sys.platform == "win32" and len(place.encode()) >= _MAX_PATH:
            return f"OpenSSH for Windows keeps only {_MAX_PATH - 1} bytes of an agent's path, and {place} has more"
        return ""

    def close(self) -> None:
        """Empty the file, if it still has our line."""
        try:
            if self._written and self._read() == self._written:
                self._write(b"")
        except OSError:
            pass  # it is gone, or not to be written any more

    def check(self) -> None:
        """See whether the line may be written; `Error` if not."""
        try:
            found = [line for line in self._read().splitlines() if line.strip()]
        except FileNotFoundError:
            return
        except OSError as error:
            raise Error(f"{self.path} cannot be read: {error.strerror or error}", "give another file") from None
        if len(found) > 1 or not all(line.split()[0].lower() == b"identityagent" for line in found):
            raise Error(
                f"{self.path} has other settings, which would be overwritten",
                "give a file of its own, and include it from ~/.ssh/config",
            )

    def _read(self) -> bytes:
        if os.path.exists(self.path) and not os.path.isfile(self.path):  # to open a pipe would take for ever
            raise OSError(errno.EINVAL, "it is no file")
        with open(self.path, "rb") as file:
            return file.read(65536)

    def _write(self, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with open(descriptor, "wb") as file:
            file.write(data)


def _line(place: str) -> bytes:
    r"""The setting. A pipe's path has slashes there, since OpenSSH takes \\ in quotes for one backslash."""
    if place.startswith("\\\\"):
        place = place.replace("\\", "/")
    backslash = "\\" in place and sys.platform != "win32"
    if backslash or '"' in place or place.startswith("$") or "${" in place or not place.isprintable():
        raise Error(f"OpenSSH's configuration cannot name {place!r}", "listen at another path")
    return os.fsencode(f'IdentityAgent "{place.replace("%", "%%")}"\n')
