"""What a person is asked, and what the log says: which key, for whom, by which process, over which hosts."""

from __future__ import annotations

import os

from .. import forwarding
from ..errors import WireError
from ..wire import Reader
from .holding import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from ..agent import Peer
    from ..constraints import RestrictDestination
    from ..forwarding import Login, Path
    from ..keys.public import PublicKey
    from .holding import Held

#: The most of a known_hosts file that is read, in bytes.
_MAX_FILE: Final = 4 * 1024 * 1024
_SSHSIG: Final = b"SSHSIG"


def who(peer: Peer | None) -> str:
    """The process at the other end of a connection, such as "ssh (process 4123)"."""
    if peer is None or not peer.pid:
        return "a process that is not known"
    program = line(os.path.basename(peer.program))
    return f"{program} (process {peer.pid})" if program else f"process {peer.pid}"


def purpose(held: Held, data: bytes, path: Path) -> str:
    """What a signature is for, as far as what is to be signed tells, such as "to log in as bob at example.org"."""
    if login := forwarding.login(held.public, data):
        return f"to log in as {line(login.user)} at {_destination(login, path, held.destinations)}"
    if data.startswith(_SSHSIG):
        try:
            return f"to sign a file or message in the namespace {line(Reader(data[len(_SSHSIG) :]).text())}"
        except WireError:
            pass
    return "for something that is no login"


def way(path: Path, limits: RestrictDestination | None) -> str:
    """The hosts that a request has come over, such as "this computer > gate"; empty where it is from this one."""
    hops = [host(bind.host_key, limits) for bind in path.binds if bind.forwarding]
    if hops:
        return " > ".join(("this computer", *hops))
    return "not known, as it could not be proven" if path.attempted and not path.binds else ""


def confirmation(held: Held, data: bytes, path: Path, peer: Peer | None) -> str:
    """The question whether a signature may be made, in some lines."""
    return f"Allow {_request('to sign', held, data, path, peer)}?"


def opening(held: Held, data: bytes, path: Path, peer: Peer | None) -> str:
    """The question for the passphrase of a key, in some lines."""
    wanted = _request("wants to sign", held, data, path, peer)
    return f"{wanted}\nPassphrase of the key: "


def _request(verb: str, held: Held, data: bytes, path: Path, peer: Peer | None) -> str:
    lines = [
        f"{who(peer)} {verb} with the key",
        f"  {line(held.comment) or 'without a comment'}",
        f"  {held.public.type} {held.fingerprint}",
        purpose(held, data, path),
    ]
    if forwarded := way(path, held.destinations):
        lines.append(f"asked for over: {forwarded}")
    return "\n".join(lines)


def host(key: PublicKey, limits: RestrictDestination | None) -> str:
    """A host by the names that the key's own limits or known_hosts have for it, and by the fingerprint of its key."""
    name = line(next(_limited_names(key, limits), "") or ", ".join(known_names(key)))
    fingerprint = f"{key.plain_type} {key.fingerprint()}"
    return f"{name} ({fingerprint})" if name else f"the host with the key {fingerprint}"


def _destination(login: Login, path: Path, limits: RestrictDestination | None) -> str:
    """The host that a login is for: by its request, or by what its connection was bound to."""
    bound = (bind.host_key for bind in path.binds if bind.session_id == login.session_id)
    key = login.host_key or next(bound, None)
    return host(key, limits) if key else "a host that its program did not name"


def _limited_names(key: PublicKey, limits: RestrictDestination | None) -> Iterator[str]:
    for pair in limits.pairs if limits else ():
        for hop in pair:
            if any(known.blob == key.blob and not known.is_ca for known in hop.keys):
                yield hop.host


def known_names(key: PublicKey, path: str = "~/.ssh/known_hosts") -> list[str]:
    """The names that stand in clear beside this key in a file of known hosts (sshd(8)); none where it is not there."""
    encoded = key.base64.encode()
    names: list[str] = []
    try:
        with open(os.path.expanduser(path), "rb") as file:
            for line in file.read(_MAX_FILE).splitlines():
                words = line.split(None, 3)
                if len(words) > 2 and words[2] == encoded and words[0][:1] not in (b"@", b"|", b"#"):
                    names += words[0].decode("utf-8", "replace").split(",")
    except OSError:
        pass
    return names[:3]
