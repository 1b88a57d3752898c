"""What a person is asked, and what the log says: which key, for whom, by which process, over which hosts."""

from __future__ import annotations

import os
from stat import S_ISREG

from .. import forwarding
from ..errors import WireError
from ..wire import Reader
from .holding import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final, Protocol

    from ..agent import Peer
    from ..constraints import RestrictDestination
    from ..forwarding import Login, Path
    from ..keys.public import PublicKey

    class Key(Protocol):
        """What is told of a key: `Held` ones have it."""

        @property
        def public(self) -> PublicKey:
            """Itself, or the certificate."""

        @property
        def comment(self) -> str:
            """What it was added with."""

        @property
        def fingerprint(self) -> str:
            """As people are shown it."""

        @property
        def destinations(self) -> RestrictDestination | None:
            """What it is limited to, which has names for hosts."""


#: Where ssh remembers hosts, unless it is told otherwise.
KNOWN_HOSTS: Final = "~/.ssh/known_hosts"
#: The most of a known_hosts file that is read, in bytes.
_MAX_FILE: Final = 4 * 1024 * 1024
#: Names of one host, and characters of a user's, that a person is shown.
_MAX_NAMES: Final = 3
_MAX_NAME: Final = 64
_SSHSIG: Final = b"SSHSIG"

#: What was read last of known hosts, by where it is and when it was written.
_known: dict[tuple[str, int, int, int], dict[bytes, list[str]]] = {}


def who(peer: Peer | None) -> str:
    """The process at the other end of a connection, such as "ssh (process 4123)"."""
    if peer is None or not peer.pid:
        return "a process that is not known"
    program = line(os.path.basename(peer.program))
    return f"{program} (process {peer.pid})" if program else f"process {peer.pid}"


def purpose(held: Key, data: bytes, path: Path) -> str:
    """What a signature is for, as far as what is to be signed tells, such as "to log in as bob at example.org"."""
    if login := forwarding.login(held.public, data):
        return f"to log in as {_quoted(login.user)} at {_destination(login, path, held.destinations)}"
    if data.startswith(_SSHSIG):
        try:
            return f"to sign a file or message in the namespace {_quoted(Reader(data[len(_SSHSIG) :]).text())}"
        except WireError:
            pass
    return "for something that is no login"


def way(path: Path, limits: RestrictDestination | None) -> str:
    """The hosts that a request has come over, such as "this computer > gate"; empty where it is from this one."""
    hops = [host(bind.host_key, limits) for bind in path.binds if bind.forwarding]
    if hops:
        return " > ".join(("this computer", *hops))
    return "not known, as it could not be proven" if path.failed else ""


def confirmation(held: Key, data: bytes, path: Path, peer: Peer | None) -> str:
    """The question whether a signature may be made, in some lines."""
    return "\n".join((f"Allow {who(peer)} to sign with the key", *_details(held, data, path))) + "?"


def opening(held: Key, data: bytes, path: Path, peer: Peer | None) -> str:
    """The question for the passphrase of a key, in some lines."""
    lines = ("Passphrase for the key", *_details(held, data, path), f"wanted by {who(peer)}", "Passphrase: ")
    return "\n".join(lines)


def _details(held: Key, data: bytes, path: Path) -> Iterator[str]:
    """The key, what it is to sign, and over which hosts that is asked for."""
    yield f"  {line(held.comment) or 'without a comment'}"
    yield f"  {held.public.type} {held.fingerprint}"
    yield purpose(held, data, path)
    if forwarded := way(path, held.destinations):
        yield f"asked for over: {forwarded}"


def host(key: PublicKey, limits: RestrictDestination | None) -> str:
    """A host by the names that the key's own limits or known_hosts have for it, and by the fingerprint of its key."""
    name = line(next(_limited_names(key, limits), "") or ", ".join(known_names(key)))
    fingerprint = f"{key.plain_type} {key.fingerprint()}"
    return f"{name} ({fingerprint})" if name else f"the host with the key {fingerprint}"


def _destination(login: Login, path: Path, limits: RestrictDestination | None) -> str:
    """The host that a login is for: by its request, or by what its connection was bound to."""
    key = forwarding.destination(login, path)
    return host(key, limits) if key else "a host that its program did not name"


def _limited_names(key: PublicKey, limits: RestrictDestination | None) -> Iterator[str]:
    for pair in limits.pairs if limits else ():
        for hop in pair:
            if any(known.blob == key.blob and not known.is_ca for known in hop.keys):
                yield hop.host


def known_names(key: PublicKey, path: str = KNOWN_HOSTS) -> list[str]:
    """The names that stand in clear beside this key in a file of known hosts (sshd(8)); none where it is not there."""
    return [name for name in names_and_hashes(key, path) if not name.startswith("|")][:_MAX_NAMES]


def names_and_hashes(key: PublicKey, path: str = KNOWN_HOSTS) -> list[str]:
    """The same with those of which the file has no more than a hash, as it has them, and however many they are."""
    try:
        with open(os.open(os.path.expanduser(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not S_ISREG(status.st_mode):  # it may never end, or never begin
                return []
            stamp = path, status.st_ino, status.st_mtime_ns, status.st_size
            if stamp not in _known:
                names = _names(file.read(_MAX_FILE))
                _known.clear()
                _known[stamp] = names
            return _known.get(stamp, {}).get(key.base64.encode(), [])
    except OSError:
        return []


def _names(text: bytes) -> dict[bytes, list[str]]:
    """The names beside each key, in base64."""
    names: dict[bytes, list[str]] = {}
    for entry in text.splitlines():
        words = entry.split(None, 3)
        if len(words) > 2 and words[0][:1] not in (b"@", b"#"):
            names.setdefault(words[2], []).extend(words[0].decode("utf-8", "replace").split(","))
    return names


def _quoted(text: str) -> str:
    """A name that anybody may choose, so that one can see where it ends."""
    return '"' + line(text[:_MAX_NAME]).replace('"', '\\"') + '"'
