"""Signatures by keys that a security key (FIDO) holds, through OpenSSH's `ssh-sk-helper`, as its own agent makes them.

    key = SecurityKey(private, "internal")      # `Refused` where it could not be used anyway
    signature = key.sign(data)                  # waits until somebody has touched the device

The library that speaks to the device is loaded by the helper, so never by a process that holds other keys. Each request
has a helper of its own: one message to its standard input and one from its standard output, both behind their length.
Messages and error numbers: OpenSSH's ssh-sk-helper, version 5 of its protocol. What it logs goes to the system's log.
"""

from __future__ import annotations

import os
import sys
import threading
from time import monotonic

from .errors import BadReply, DeadlineExceeded, Disconnected, Refused, Unsupported, UnsupportedKey, WireError
from .forwarding import login
from .messages import MAX_MESSAGE, frame
from .wire import Reader, Struct, Writer

assert sys.platform != "win32", "UNIX only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import Popen
    from typing import Final, TypeVar

    from .keys.private import PrivateKey
    from .keys.public import PublicKey
    from .wire import Byte, Secret

    _A = TypeVar("_A")
    _T = TypeVar("_T")

#: The libraries that may speak to a device, as ssh-agent(1) has them without -P.
DEFAULT_ALLOWED: Final = "/usr/lib*/*,/usr/local/lib*/*"
#: The applications of keys that are for SSH alone, as ssh-agent(1) has them by default.
SSH_APPLICATIONS: Final = "ssh:*"
#: Seconds for a signature: a person has to find the security key and touch it.
TIMEOUT: Final = 60.0
#: Bytes of the longest answer that is believed; one with a signature has some 150.
MAX_REPLY: Final = 4096

_INTERNAL: Final = "internal"
_HELPER: Final = "ssh-sk-helper"
#: Where systems have it; what was installed beside a system's own OpenSSH comes first.
_PLACES: Final = (
    "/usr/local/libexec", "/opt/homebrew/opt/openssh/libexec", "/usr/local/opt/openssh/libexec",
    "/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec",
)  # fmt: skip

_VERSION: Final = 5
_ERROR, _SIGN = 0, 1
#: What the numbers of errors stand for; most others are said for anything that failed.
_WRONG_PIN, _UNSUPPORTED, _ABSENT = 43, 59, 60
_LOG_LEVEL: Final = 3  # what ssh-agent asks for: errors, and not what is being done
#: Bits of a key's flags.
_TOUCH, _PIN = 1, 4

#: Seconds between two looks whether anybody still waits.
_PAUSE: Final = 0.2
#: Seconds that a helper has to end when it has answered.
_GRACE: Final = 1.0

#: A device answers one at a time, and it cannot tell which one it is touched for.
_turn = threading.Lock()


class PinWanted(Refused):
    """The security key wants its PIN, and was given none, or a wrong one."""

    hint = "give its PIN; after some wrong ones it takes none any more, until it is reset"


class _Request(Struct):
    version: Byte
    kind: int
    log_to_stderr: bool
    log_level: int
    key: Secret
    provider: str
    data: bytes
    algorithm: str
    compatibility: int
    pin: Secret


def _never() -> bool:
    return False


class SecurityKey:
    """Signs with a key that a security key holds. Threads may share it; they take turns.

    `provider` is the path of the library that speaks to the device, or "internal" for the helper's own; `allowed` are
    patterns for such paths, as ssh-agent(1) has them. Raises `UnsupportedKey` for a key of another kind, `Refused`
    where there is no helper, or no such library, or it is not allowed.
    """

    def __init__(self, key: PrivateKey, provider: str, allowed: str = DEFAULT_ALLOWED) -> None:
        if not key.public.hardware:
            raise UnsupportedKey(f"no security key holds a key of type {key.type}", "add it without a library")
        self._key = key.plain
        self._provider = _library(provider, allowed)
        self._helper = _find_helper()

    def sign(
        self,
        data: bytes,
        flags: int = 0,
        *,
        pin: str | None = None,
        gone: Callable[[], bool] = _never,
        timeout: float = TIMEOUT,
    ) -> bytes:
        """A signature of `data` in SSH's form, within `timeout` seconds, its turn waited for included; `gone` says that
        nobody wants it any more. `flags` of a request mean nothing to such keys.

        Raises `PinWanted`, `Refused` (the device is not there, was not touched, will not), `Unsupported` (it cannot),
        `DeadlineExceeded`, `Disconnected` (gone, or the helper has ended), `BadReply`.
        """
        from .keys.signatures import verify

        reply = _exchange(self._helper, self._request(data, pin), gone, timeout)
        signature = self._read(reply, pin)
        try:
            verify(self._key.public, signature, data)
        except BadReply as error:
            raise _lied(self._helper, str(error)) from None
        return signature

    @property
    def needs_touch(self) -> bool:
        """Whether somebody has to touch the device for each signature."""
        return bool(self._flags & _TOUCH)

    @property
    def needs_pin(self) -> bool:
        """Whether each signature takes the device's PIN. Some want it for all of their keys: see `PinWanted`."""
        return bool(self._flags & _PIN)

    @property
    def _flags(self) -> int:
        flags = self._key.fields[-3]
        assert isinstance(flags, int)
        return flags

    def _request(self, data: bytes, pin: str | None) -> bytes:
        message = _Request(
            version=_VERSION,
            kind=_SIGN,
            log_to_stderr=False,
            log_level=_LOG_LEVEL,
            key=bytes(self._key.write(Writer())),
            provider=self._provider,
            data=data,
            algorithm="",
            compatibility=0,
            pin=(pin or "").encode("utf-8", "surrogateescape"),
        ).encode()
        if len(message) > MAX_MESSAGE:
            raise Refused(f"{len(data)} bytes are more than {_HELPER} takes", "sign a hash of them")
        return frame(message)

    def _read(self, reply: bytes, pin: str | None) -> bytes:
        """The signature in a reply. Raises what the reply says."""
        reader = Reader(reply)
        try:
            version = reader.byte()
            if version != _VERSION:
                raise Unsupported(
                    f"{self._helper} speaks version {version} of its protocol, not {_VERSION}",
                    "use that of OpenSSH 8.9 or later; SSH_SK_HELPER names it",
                )
            kind = reader.uint32()
            if kind not in (_ERROR, _SIGN):
                raise WireError(f"message of type {kind}")
            content = reader.string() if kind == _SIGN else reader.uint32()
            reader.end()
        except WireError as error:
            raise _lied(self._helper, str(error)) from None
        if isinstance(content, int):
            raise self._refusal(content, pin)
        return content

    def _refusal(self, number: int, pin: str | None) -> Refused | Unsupported:
        if number == _WRONG_PIN:
            return PinWanted("the security key wants its PIN" if pin is None else "the PIN is not the security key's")
        if number == _UNSUPPORTED:
            return Unsupported("the security key cannot sign that way", "use the one that the key was made with")
        if number == _ABSENT:
            return Refused("no security key is there that holds this key", "plug in the one that it was made with")
        return Refused(
            f"the security key did not sign, or the library {self._provider!r} failed (error {number})",
            f"touch it while it blinks; the system's log has what {_HELPER} says",
        )

    def __repr__(self) -> str:
        return f"<SecurityKey {self._key.public.type} {self._key.public.fingerprint()}>"


def web_safe(key: PublicKey, data: bytes, applications: str = SSH_APPLICATIONS) -> bool:
    """Whether `key` may sign `data` without a web site taking it for a login there.

    A key whose application the pattern-list `applications` has not may be one for a web site. It signs logins with
    itself and what ssh-keygen(1) -Y signs, and nothing else: see websafe-allow in ssh-agent(1).
    """
    if not key.hardware:
        return True
    application = key.fields[-1]
    assert isinstance(application, bytes)
    name = application.decode("utf-8", "surrogateescape")
    return _is_listed(name, applications) or login(key, data) is not None or _is_sshsig(data)


def _is_sshsig(data: bytes) -> bool:
    """Whether this is what is signed of a file or message, of any namespace and hash (OpenSSH's PROTOCOL.sshsig)."""
    reader = Reader(data)
    try:
        magic = reader.take(6)
        namespace, _, algorithm, _ = (reader.string() for _ in range(4))
        reader.end()
    except WireError:
        return False
    return magic == b"SSHSIG" and b"\0" not in namespace + algorithm


def _library(provider: str, allowed: str) -> str:
    """The library's own path, links resolved, or "internal". Raises `Refused`."""
    if provider.lower() == _INTERNAL:
        return _INTERNAL
    if not os.path.isabs(provider):
        raise Refused(f"the library {provider[:200]!r} is not named by its whole path", 'use that, or "internal"')
    try:
        path = os.path.realpath(provider)
    except ValueError:  # a NUL, or what this locale cannot encode
        path = ""
    if not os.path.isfile(path):
        raise Refused(f"the library {provider[:200]!r} is not there", "install it, or correct its path")
    if not _is_listed(path, allowed):
        raise Refused(f"the library {path!r} is not among those that are allowed", "allow it when the agent is started")
    return path


def _is_listed(name: str, patterns: str) -> bool:
    """Whether a pattern-list, see ssh_config(5), has `name`: none that begins with ! may match, and another has to."""
    from fnmatch import fnmatchcase

    matching = [
        pattern
        for pattern in patterns.split(",")
        if fnmatchcase(name, pattern.removeprefix("!").replace("[", "[[]"))  # in such lists [ stands for itself
    ]
    return bool(matching) and not any(pattern.startswith("!") for pattern in matching)


def _find_helper() -> str:
    """The helper's path. Raises `Refused`."""
    named = os.environ.get("SSH_SK_HELPER")
    for path in (named,) if named else (os.path.join(place, _HELPER) for place in _PLACES):
        if os.path.isabs(path) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    where = f"{named!r}, which SSH_SK_HELPER names, is no program" if named else f"there is no {_HELPER}"
    raise Refused(
        f"security keys cannot be reached: {where}", "install OpenSSH's client, or have SSH_SK_HELPER name it"
    )


def _exchange(helper: str, request: bytes, gone: Callable[[], bool], timeout: float) -> bytes:
    """The reply of a helper to `request`, without its length."""
    deadline = monotonic() + timeout
    while not _turn.acquire(timeout=_PAUSE):
        _check_wanted(gone)
        if monotonic() >= deadline:
            raise DeadlineExceeded("other signatures by a security key took too long", "try again when they are done")
    try:
        return _Run(helper, gone, deadline).ask(request)
    finally:
        _turn.release()


class _Run:
    """A helper that runs, up to `deadline`, by `time.monotonic`, or until nobody wants it any more."""

    def __init__(self, helper: str, gone: Callable[[], bool], deadline: float) -> None:
        import socket
        from subprocess import DEVNULL, Popen

        self._helper = helper
        self._gone = gone
        self._deadline = deadline
        self._end, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = Popen((helper,), stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=DEVNULL)
        except BaseException as error:
            self._end.close()
            if isinstance(error, OSError):
                raise Refused(f"{helper} cannot be run: {error.strerror or error}", "install OpenSSH anew") from None
            raise
        self._end.settimeout(_PAUSE)

    def ask(self, request: bytes) -> bytes:
        """The reply to `request`; after that the helper has ended."""
        try:
            rest = memoryview(request)
            while rest:
                rest = rest[self._patiently(self._end.send, rest) :]
            size = int.from_bytes(self._take(4), "big")
            if size > MAX_REPLY:
                raise _lied(self._helper, f"it announces {size} bytes")
            reply = self._take(size)
            _await_end(self._process)
        finally:
            self._end.close()
            self._process.kill()
            self._process.wait()
        return reply

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._patiently(self._end.recv, size - len(data))
            if not piece:
                raise self._ended()
            data += piece
        return data

    def _patiently(self, operation: Callable[[_A], _T], argument: _A) -> _T:
        """What `operation` returns as soon as it can; it raises TimeoutError after `_PAUSE`."""
        while True:
            _check_wanted(self._gone)
            if monotonic() >= self._deadline:
                raise DeadlineExceeded("the security key did not sign in time", "touch it while it blinks")
            try:
                return operation(argument)
            except TimeoutError:
                pass
            except (BrokenPipeError, ConnectionResetError):
                raise self._ended() from None

    def _ended(self) -> Disconnected:
        _await_end(self._process)
        status = self._process.returncode
        how = f"has ended with status {status}" if status is not None else "has hung up"
        return Disconnected(
            f"{self._helper} {how}, without an answer",
            f"it may be of an OpenSSH before 8.9, or its library failed; the system's log has what {_HELPER} says",
        )


def _await_end(process: Popen[bytes]) -> None:
    from subprocess import TimeoutExpired

    try:
        process.wait(_GRACE)
    except TimeoutExpired:
        pass


def _check_wanted(gone: Callable[[], bool]) -> None:
    if gone():
        raise Disconnected("whoever asked for the signature has left")


def _lied(helper: str, what: str) -> BadReply:
    return BadReply(f"{helper} gave a wrong answer: {what}", "use OpenSSH's own; SSH_SK_HELPER may name another")
