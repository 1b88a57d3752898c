"""The hosts between an agent and whoever asks it, and what a key that is limited to destinations may do across them.

    path = LOCAL.bind(contents)              # a session-bind: the connection goes by way of that host from here on
    may_see(limits, path)                    # whether such a key is listed there, can be removed, replaced
    check_use(limits, path, key, data)       # and whether it may sign this

ssh proves with `session-bind@openssh.com` which host a connection to the agent is used for, or forwarded to;
`constraints.RestrictDestination` says over which hosts, and as whom at the last, a key may log in. Both are in
OpenSSH's PROTOCOL.agent, and are judged as its agent does (9.2 and later). Pure decisions: nothing here does any input
or output.
"""

from __future__ import annotations

from time import time

from .errors import BadReply, Refused, UnsupportedKey, WireError
from .keys.public import CERTIFICATE_SUFFIX, PublicKey
from .keys.signatures import verify
from .messages import SessionBind
from .wire import Reader, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .constraints import Hop, RestrictDestination
    from .keys.public import Certificate

#: Sessions that one connection can be bound to, bytes of a session's identifier, and principals of one certificate:
#: OpenSSH's own bounds. A session's identifier is a hash, of 64 bytes at most today.
MAX_BINDS: Final = 16
MAX_SESSION_ID: Final = 128
MAX_PRINCIPALS: Final = 256
#: Bytes of a user's or host's name, and of a pattern for one, that are compared; longer ones match nothing.
MAX_NAME: Final = 1024
#: Bits of the shortest RSA key that OpenSSH takes for a host's or an authority's.
MIN_RSA_BITS: Final = 1024

_HINT = "its owner allows it for some destinations only: have it added with this one, or without any (ssh-add -h)"
_BIND_HINT = "connect to the agent once more: ssh binds each connection by itself"
_LOGIN_HINT = "let ssh ask for it, of OpenSSH 8.9 or later on each host of the way"
_USERAUTH_REQUEST = 50  # RFC 4252, section 6
_HOST_CERTIFICATE = 2  # OpenSSH's PROTOCOL.certkeys
_HOST_BOUND = b"publickey-hostbound-v00@openssh.com"
#: What an authority may have signed a host's certificate with: nothing that rests on SHA-1.
_AUTHORITY_ALGORITHMS = frozenset(
    (b"ssh-ed25519", b"sk-ssh-ed25519@openssh.com", b"rsa-sha2-256", b"rsa-sha2-512", b"ecdsa-sha2-nistp256",
     b"ecdsa-sha2-nistp384", b"ecdsa-sha2-nistp521", b"sk-ecdsa-sha2-nistp256@openssh.com")
)  # fmt: skip


class Bind(Struct):
    """A session that a connection is bound to: its host's key and its identifier.

    The agent is forwarded there, or the session is still to be logged in to.
    """

    host_key: PublicKey
    session_id: bytes
    forwarding: bool


class Path(Struct):
    """The sessions that one connection is bound to, from this machine outwards; none where its user is local.

    `attempted` is whether binding was tried: a connection for which that failed is not a local one. `failed` is whether
    it ever failed, so that there may be a host on the way that is not among the binds.
    """

    attempted: bool = False
    binds: tuple[Bind, ...] = ()
    failed: bool = False

    def attempt(self) -> Path:
        """The same path, marked as one with an attempt to bind it. It is what remains when `bind` raises."""
        return Path(True, self.binds, True)

    def bind(self, contents: bytes) -> Path:
        """The path after a session-bind with these contents.

        The host's signature is over the session's identifier, made when the session began, and may be of any algorithm
        that `verify` knows, as ssh negotiated it. Raises `WireError` for contents or keys that are malformed or cannot
        be used, `Refused` for a session that cannot follow those that are bound already, or is not the host's.
        """
        request = SessionBind.decode(contents)
        if len(request.session_id) > MAX_SESSION_ID:
            raise _unbound(f"a session's identifier of {len(request.session_id)} bytes; {MAX_SESSION_ID} are believed")
        key = PublicKey(request.host_key)
        _check_host_key(key)
        try:
            verify(key, request.signature, request.session_id)
        except BadReply:
            raise _unbound(f"the session is not one of the host {key.fingerprint()}, which did not sign it") from None
        return self._followed_by(Bind(key, request.session_id, request.forwarding))

    def _followed_by(self, new: Bind) -> Path:
        for old in self.binds:
            if not old.forwarding:
                raise _unbound("the connection is bound to a session that is logged in to: no other can follow")
            if old.session_id == new.session_id:
                if old.host_key == new.host_key:
                    return self
                raise _unbound("the session is bound to this connection already, with another host's key")
        if len(self.binds) >= MAX_BINDS:
            raise _unbound(f"the connection is bound to {MAX_BINDS} sessions already")
        return Path(True, (*self.binds, new), self.failed)


def _unbound(why: str) -> Refused:
    return Refused(why, _BIND_HINT)


#: The path of a connection that nothing is known of.
LOCAL: Final = Path()


class Login(Struct):
    """What a userauth request with a public key (RFC 4252, section 7) asks for: to log in as `user`.

    `host_key` is the server's, where the client has it signed, too (publickey-hostbound-v00@openssh.com).
    """

    user: str
    session_id: bytes
    host_key: PublicKey | None


def login(key: PublicKey, data: bytes) -> Login | None:
    """The login that a signature of `data` by `key` would be for; None where `data` is something else.

    The request has to be one with this very key and an algorithm of it, and nothing may follow it.
    """
    reader = Reader(data)
    try:
        session_id = reader.string()
        if not session_id or reader.byte() != _USERAUTH_REQUEST:
            return None
        user, service, method = reader.string(), reader.string(), reader.string()
        if service != b"ssh-connection" or method not in (b"publickey", _HOST_BOUND) or b"\0" in user:
            return None
        if reader.byte() != 1 or reader.text() not in _algorithms(key) or reader.string() != key.blob:
            return None
        host_key = PublicKey(reader.string()) if method == _HOST_BOUND else None
        reader.end()
    except WireError:
        return None
    return Login(user.decode("utf-8", "surrogateescape"), session_id, host_key)


def destination(wanted: Login, path: Path) -> PublicKey | None:
    """The key of the host that a login is for; None where that is not known.

    A login that does not name its host is for the one whose session was bound, if nobody else can have bound it: a host
    that the agent is forwarded to could sign another host's session as its own, and pass that off for a login there.
    That is why OpenSSH's agent, too, wants the host's name in what is asked for from beyond one.
    """
    if wanted.host_key or path.failed or len(path.binds) != 1:
        return wanted.host_key
    (bind,) = path.binds
    return bind.host_key if bind.session_id == wanted.session_id and not bind.forwarding else None


def check_limits(limits: RestrictDestination) -> None:
    """Raise `WireError` for limits with a host's key that cannot be read: nobody knows what they were to allow."""
    for pair in limits.pairs:
        for hop in pair:
            for key in hop.keys:
                if not PublicKey(key.blob).known:
                    raise UnsupportedKey(f"a destination with a host's key of unknown type for {hop.host[:64]!r}")


def may_see(limits: RestrictDestination | None, path: Path, now: float | None = None) -> bool:
    """Whether a key with these limits is there at all for a connection: to be listed, removed or replaced.

    `now` is the time for certificates, in seconds since 1970; None is the present. Limits without any pair are none,
    as in OpenSSH's agent.
    """
    return not (limits and limits.pairs and _obstacle(limits, path, None, time() if now is None else now))


def check_use(
    limits: RestrictDestination | None, path: Path, key: PublicKey, data: bytes, now: float | None = None
) -> None:
    """Raise `Refused` unless `key`, having these limits, may sign `data` for a connection. `now` as for `may_see`."""
    if not (limits and limits.pairs):
        return
    if not path.binds:
        raise Refused("the key is limited to destinations, and this connection is not bound to a session", _HINT)
    wanted = login(key, data)
    if wanted is None:
        raise Refused("the key is limited to destinations, and what it is to sign is no login with it", _HINT)
    obstacle = _obstacle(limits, path, wanted.user, time() if now is None else now)
    if obstacle:
        raise Refused(obstacle, _HINT)
    last = path.binds[-1]
    if wanted.session_id != last.session_id:
        raise Refused("the login is for another session than the one that was bound last", _LOGIN_HINT)
    if wanted.host_key is None and len(path.binds) > 1:
        raise Refused("the login does not name its host, which it must for a forwarded agent", _LOGIN_HINT)
    if wanted.host_key not in (None, last.host_key):
        raise Refused("the login is for another host than the one that was bound last", _LOGIN_HINT)


def _obstacle(limits: RestrictDestination, path: Path, user: str | None, now: float) -> str:
    """What of `path` the limits do not allow, in a line, or nothing; `user` is None where nothing is signed."""
    if not path.binds:
        return "a session could not be bound to this connection" if path.attempted else ""
    *between, last = path.binds
    origin: PublicKey | None = None
    for bind in between:
        if not bind.forwarding:
            return "the agent is forwarded through a session that was bound for logging in"
        if not _allowed(limits, origin, bind.host_key, None, now):
            return f"the key may not be forwarded to the host {bind.host_key.fingerprint()} on this way"
        origin = bind.host_key
    if last.forwarding and user is not None:
        return "the session that was bound last is for forwarding, not for logging in"
    if not _allowed(limits, origin, last.host_key, user, now):
        return f"the key may not be used for the host {last.host_key.fingerprint()} on this way, or not as this user"
    if last.forwarding and not any(_is(last.host_key, hop, now) for hop, _ in limits.pairs):
        return f"the key may not be used beyond the host {last.host_key.fingerprint()}"
    return ""


def _allowed(
    limits: RestrictDestination, origin: PublicKey | None, target: PublicKey, user: str | None, now: float
) -> bool:
    """Whether some pair goes from the one host, None being this machine, to the other, as `user` if that is known."""
    return any(
        (not (start.host or start.keys) if origin is None else _is(origin, start, now))
        and _is(target, end, now)
        and (user is None or not end.user or _matches(user, end.user))
        for start, end in limits.pairs
    )


def _is(key: PublicKey, hop: Hop, now: float) -> bool:
    """Whether a host with this key or certificate is `hop`."""
    certificate = key.certificate
    if certificate is None:
        return any(known.blob == key.blob and not known.is_ca for known in hop.keys)
    authority = certificate.authority
    trusted = any(known.blob == authority and known.is_ca for known in hop.keys)
    return trusted and _certifies(certificate, hop.host, now)


def _certifies(certificate: Certificate, host: str, now: float) -> bool:
    """Whether a certificate is one for `host`, which may be a pattern, as ssh-add(1) has it.

    A certificate without principals is for no host, as it is since OpenSSH 10.3: before that it was for all of them.
    """
    return (
        certificate.kind == _HOST_CERTIFICATE
        and certificate.valid_after <= now < certificate.valid_before
        and not certificate.critical_options
        and Reader(certificate.signature).string() in _AUTHORITY_ALGORITHMS
        and any(_matches(principal, host) for principal in certificate.principals)
    )


def _matches(text: str, pattern: str) -> bool:
    """Whether `pattern`, in which * is any number of bytes and ? any one, is all of `text`."""
    data, wanted = (one.encode("utf-8", "surrogateescape") for one in (text, pattern))
    if max(len(data), len(wanted)) > MAX_NAME:  # it would take long, and no name has so many
        return False
    at = place = 0
    again: tuple[int, int] | None = None  # where to go on if this fails: after the last *, one byte further
    while at < len(data):
        here = wanted[place : place + 1]
        if here == b"*":
            place += 1
            again = at + 1, place
        elif here in (b"?", data[at : at + 1]):
            at, place = at + 1, place + 1
        elif again:
            at, place = again
            again = at + 1, place
        else:
            return False
    return not wanted[place:].strip(b"*")


def _algorithms(key: PublicKey) -> tuple[str, ...]:
    """The names that a signature by `key` can have in a userauth request."""
    if key.plain_type != "ssh-rsa":
        return (key.type,)
    suffix = CERTIFICATE_SUFFIX if key.certificate else ""
    return tuple(name + suffix for name in ("ssh-rsa", "rsa-sha2-256", "rsa-sha2-512"))


def _check_host_key(key: PublicKey) -> None:
    """Raise `WireError` or `Refused` for a key that OpenSSH would not even read as a host's."""
    _check_size(key)
    certificate = key.certificate
    if certificate is None:
        return
    if certificate.kind not in (1, _HOST_CERTIFICATE):
        raise WireError(f"a certificate of unknown kind {certificate.kind}")
    if len(certificate.principals) > MAX_PRINCIPALS or "\0" in "".join((certificate.key_id, *certificate.principals)):
        raise WireError("a certificate with too many principals, or with a zero byte in a name")
    for options in (certificate.critical_options, certificate.extensions):
        if len(list(Reader(options).strings())) % 2:
            raise WireError("a certificate with an option that has no value")
    authority = PublicKey(certificate.authority)
    if authority.certificate:
        raise UnsupportedKey("a certificate that was signed with a certificate")
    _check_size(authority)
    signed = key.blob[: -len(certificate.signature) - 4]
    try:
        verify(authority, certificate.signature, signed)
    except BadReply:
        raise _unbound(f"the certificate is not one of {authority.fingerprint()}, which did not sign it") from None


def _check_size(key: PublicKey) -> None:
    if key.plain_type == "ssh-rsa" and (key.bits or 0) < MIN_RSA_BITS:
        raise UnsupportedKey(f"an RSA key of {key.bits} bits; {MIN_RSA_BITS} is the least")
