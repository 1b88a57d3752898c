"""Where the socket of an agent of ours lies when nobody names a place: OpenSSH's, since its version 10.1 and before.

path = new_path(os.environ)             # ~/.ssh/agent/s.HOST.agent.RANDOM
path = temporary_path(os.environ)       # /tmp/ssh-RANDOM/agent.PID
remove_temporary(path)                  # the directory, when its agent has ended; nothing for other paths
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from time import time

from ..errors import Error
from . import directories, unix, unix_listener

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LENGTH: Final = 10
#: What OpenSSH's agent calls its own sockets there; sshd calls those that it forwards otherwise.
_TAG: Final = "agent"

#: Seconds that a socket must have been there before it is taken for one that somebody has left: as long as OpenSSH
#: waits, whose agents begin to listen a moment after they have made theirs.
_YOUNG: Final = 3600


def new_path(environ: Mapping[str, str], say: Callable[[str], object] | None = None) -> str:
    """A new path for a socket in ~/.ssh/agent, which is made if need be, as ~/.ssh is.

    Where that cannot be (there is no home, nobody may write there, the path would be too long), it is one of
    `temporary_path`, and `say` is told why. Raises `Error`, also where others may write in ~/.ssh or ~/.ssh/agent:
    OpenSSH would take these as they are, and ~/.ssh/agent is made with mode 0700 by both.
    """
    try:
        return _new_path(environ)
    except OSError as error:
        path = temporary_path(environ)
        if say:
            say(f"listening at {path}, as {error.filename} cannot be used: {error.strerror}")
        return path


def temporary_path(environ: Mapping[str, str]) -> str:
    """A path for a socket in a new directory, made with mode 0700 in TMPDIR or /tmp. Raises `Error`."""
    why = ""
    for base in (environ.get("TMPDIR", ""), "/tmp"):  # noqa: S108 - nobody else can know the name, or have made it
        directory = os.path.join(base, f"ssh-{_text(os.urandom(_LENGTH))}")
        path = os.path.join(directory, f"agent.{os.getpid()}")
        if not os.path.isabs(path) or len(os.fsencode(path)) > unix.MAX_PATH:
            continue
        try:
            os.mkdir(directory, 0o700)
        except OSError as error:
            why = f": {base}: {error.strerror}"
            continue
        return path
    raise Error(f"there is no place for a socket{why}", "set TMPDIR to a directory of yours")


def remove_temporary(path: str) -> None:
    """Remove the directory of a path of `temporary_path`'s, if it is empty. With another path this does nothing."""
    directory, name = os.path.split(path)
    kind, _, rest = os.path.basename(directory).partition("-")
    if kind == "ssh" and _is_text(rest) and name.startswith("agent."):
        try:
            os.rmdir(directory)
        except OSError:
            pass  # somebody put something in it, or was faster


def remove_stale(environ: Mapping[str, str], *, any_host: bool = False) -> list[str]:
    """Remove this user's sockets in ~/.ssh/agent on which nobody listens; the paths of those that were removed.

    As OpenSSH does with `ssh-agent -u`, this leaves those alone that are younger than an hour, and without `any_host`
    (`-uu`) those of other computers, on which the same home may be. Raises `Error`.
    """
    try:
        directory = os.path.join(_home(environ), ".ssh", "agent")
        os.stat(directory)
    except OSError:
        return []
    turn = directories.lock(directory)
    try:
        paths = [os.path.join(directory, name) for name in os.listdir(directory) if _is_ours(name, any_host=any_host)]
        return [path for path in paths if _remove(path)]
    except OSError as error:
        raise Error(f"cannot look into {directory}: {error.strerror}", "check its mode, which should be 0700") from None
    finally:
        os.close(turn)


def host_hash() -> str:
    """What stands for this computer in the names of sockets, by OpenSSH's rule.

    Each of the first ten bytes of the SHA-512 of the host's name, modulo 62, is a letter or a digit.
    """
    from hashlib import sha512

    return _text(sha512(os.fsencode(os.uname().nodename)).digest())


def _new_path(environ: Mapping[str, str]) -> str:
    """As `new_path`, in ~/.ssh/agent. Raises `Error`, OSError."""
    home = _home(environ)
    path = os.path.join(home, ".ssh", "agent", f"s.{host_hash()}.{_TAG}.{_text(os.urandom(_LENGTH))}")
    if len(os.fsencode(path)) > unix.MAX_PATH:
        raise OSError(errno.ENAMETOOLONG, "it is too long for the path of a socket", os.path.dirname(path))
    directory = os.path.join(home, ".ssh")
    directories.make_private(directory)
    directory = os.path.join(directory, "agent")
    directories.make_private(directory)
    if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
        raise OSError(errno.EACCES, "nothing can be written there", directory)
    return path


def _home(environ: Mapping[str, str]) -> str:
    """The home directory, as OpenSSH's agent finds it. Raises OSError."""
    home = environ.get("HOME")
    if not home:
        import pwd

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            raise OSError(errno.ENOENT, "this user has none, and HOME is not set", "a home directory") from None
    if not os.path.isabs(home):
        raise OSError(errno.ENOENT, "HOME is to be the whole path of a directory", home)
    return home


def _text(data: bytes) -> str:
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in data[:_LENGTH])


def _is_text(text: str) -> bool:
    return len(text) == _LENGTH and set(text) <= set(_ALPHABET)


def _is_ours(name: str, *, any_host: bool) -> bool:
    """Whether a file is called as a socket of this computer's, or of any, is."""
    kind, _, rest = name.partition(".")
    host, _, rest = rest.partition(".")
    tag, _, random = rest.rpartition(".")
    return kind == "s" and bool(tag) and _is_text(random) and (_is_text(host) if any_host else host == host_hash())


def _remove(path: str) -> bool:
    """Remove a socket that somebody has left; whether it was one, and is gone."""
    try:
        status = os.lstat(path)
        mine = stat.S_ISSOCK(status.st_mode) and status.st_uid == os.geteuid()
        if not mine or status.st_mtime > time() - _YOUNG or unix_listener.listens(path)[0]:
            return False
        os.unlink(path)
    except OSError:  # somebody else was faster, or it cannot be looked at
        return False
    return True
