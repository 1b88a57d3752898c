"""A client that asks an agent for everything there is, at random, and knows what each answer has to be.

Others do the same meanwhile, each with keys of its own. One of them locks the agent now and then and counts that in
`locks`, once before and once after: while that is odd, or has changed, a refusal is right as well.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import raw

from pageantry.constraints import Hop, HostKey, Lifetime, MaxSign, RestrictDestination
from pageantry.extensions import LIST_EXTENDED, QUERY, REPORT
from pageantry.keys.signatures import Signer, check_algorithm, verify
from pageantry.messages import (
    MAX_MESSAGE,
    Extension,
    ExtensionResponse,
    Lock,
    RemoveIdentity,
    SessionBind,
    SignResponse,
    Unlock,
    decode,
    frame,
    split_identities,
)
from pageantry.wire import Writer

if TYPE_CHECKING:
    import socket
    from ctypes import c_uint64

    from pageantry.constraints import Constraint
    from pageantry.keys.private import PrivateKey

assert sys.platform == "linux", "as raw.py has it"

#: The type byte of a reply to an extension that has one of its own.
EXTENSION = ExtensionResponse.number
#: Keys of a client, and texts that it signs.
MAX_KEYS, TEXTS = 6, 8
#: Requests of the first client between two times that it locks the agent.
LOCK_EVERY = 3000
#: Types that are no requests, or none that the agent knows.
STRANGE = (0, 1, 5, 6, 12, 14, 28, 29, 99, 255)


class Wrong(Exception):
    """An answer was not right."""


@dataclass
class Own:
    """A key of ours that the agent holds."""

    key: PrivateKey
    comment: str
    #: between which two moments it goes by itself, by time.monotonic
    ends: tuple[float, float] | None = None
    #: after how many signatures it goes
    signatures: int | None = None
    #: the host that it is limited to
    host: PrivateKey | None = None


class Client:
    """One client; `number` decides what it does. `act` makes a request or a few, and raises `Wrong`, OSError."""

    def __init__(self, path: str, number: int, locks: c_uint64) -> None:
        self.count = 0
        self._path = path
        self._locks = locks
        self._locking = LOCK_EVERY if number == 0 else None
        self._random = random.Random(number)
        self._keys = [
            raw.rsa_key(2048) if number % 10 == 9 else raw.ecdsa_key(),
            *(raw.ed25519_key() for _ in range(MAX_KEYS - 1)),
        ]
        self._hosts = [raw.ed25519_key(), raw.ed25519_key()]
        self._texts = [b"a text of client %d".ljust(50 * n + 30, b".") % number for n in range(TEXTS)]
        self._verified: dict[bytes, bytes] = {}  # signatures, by their requests
        self._held: dict[bytes, Own] = {}
        self._bound: tuple[PrivateKey, bytes] | None = None
        self._connection = self._connect()
        self._acts = {
            self._list: 28, self._sign: 38, self._add: 6, self._remove: 5, self._pipeline: 4, self._bind: 4,
            self._extend: 4, self._malformed: 4, self._nonsense: 1, self._hang_up: 3, self._stranger: 3,
        }  # fmt: skip

    def act(self) -> None:
        """Make a request, or a few."""
        if self._locking and self.count > self._locking:
            self._locking += LOCK_EVERY
            self._lock()
        else:
            self._random.choices([*self._acts], [*self._acts.values()])[0]()

    def end(self) -> None:
        """Remove what is ours."""
        self._reconnect()
        while self._held:
            self._remove()
        self._connection.close()

    # Asking, and judging what comes

    def _ask(self, request: bytes, *right: int) -> bytes:
        """The payload of the reply, which has to be of one of those types; empty for a refusal that a lock explains."""
        locks = self._locks.value
        return self._judge(request, raw.ask(self._connection, request), locks, right)

    def _judge(self, request: bytes, reply: bytes, locks: int, right: tuple[int, ...]) -> bytes:
        self.count += 1
        payload = reply[4:]
        if (locks % 2 or locks != self._locks.value) and payload in (b"\x05", b"\x0c\0\0\0\0"):
            return b""
        self._need(payload[0] in right, f"{request[:99].hex()} had the reply {reply[:99].hex()}, not one of {right}")
        return payload

    def _need(self, condition: object, what: str) -> None:
        if not condition:
            raise Wrong(f"request {self.count}: {what}")

    def _sees(self, own: Own) -> bool:
        """Whether this connection may know of it."""
        return not own.host or not self._bound or own.host is self._bound[0]

    def _forget(self, own: Own) -> None:
        del self._held[own.key.public.blob]

    # What is asked for

    def _list(self) -> None:
        before = time.monotonic()
        if reply := self._ask(raw.LIST, raw.KEYS):
            self._check_list(dict(split_identities(reply[1:])), before, time.monotonic())

    def _check_list(self, found: dict[bytes, bytes], before: float, after: float) -> None:
        """Our keys have to be there with their comments, and no other ones of ours."""
        for key in self._keys:
            blob = key.public.blob
            own = self._held.get(blob)
            if own and own.ends and after >= own.ends[0]:
                self._need(before <= own.ends[1] or blob not in found, "a key is listed whose time is over")
                if blob not in found:
                    self._forget(own)
            else:
                expected = own.comment.encode() if own and self._sees(own) else None
                self._need(found.get(blob) == expected, f"a key is listed as {found.get(blob)!r}, not {expected!r}")

    def _sign(self) -> None:
        own = self._some()
        text, may = self._random.choice(self._texts), self._sees(own) and not own.host
        if own.host and self._bound and own.host is self._bound[0] and self._random.random() < 0.7:
            text, may = self._login(own.key), True
        flags = self._random.choice((2, 4)) if own.key.type == "ssh-rsa" else 0
        before = time.monotonic()
        reply = self._ask(raw.sign(own.key, text, flags), *self._right(own, raw.SIGNATURE, may))
        if reply[:1] == b"\x05":
            self._check_refused(own)
        elif reply:
            self._need(not own.ends or before <= own.ends[1], "a key has signed whose time is over")
            self._check_signature(own, text, flags, reply)

    def _right(self, own: Own, granted: int, may: bool) -> tuple[int, ...]:
        """The types of reply that are right for a request about this key."""
        if own.ends:
            return granted, raw.FAILURE
        return (granted if may else raw.FAILURE,)

    def _check_refused(self, own: Own) -> None:
        """A key whose time is over is refused, and no other one that has one."""
        if own.ends:
            self._need(time.monotonic() >= own.ends[0], "a key is refused before its time is over")
            self._forget(own)

    def _check_signature(self, own: Own, text: bytes, flags: int, reply: bytes) -> None:
        """Each is verified, or the same as one that was verified for the same request."""
        response = decode(reply)
        assert isinstance(response, SignResponse)
        request = raw.sign(own.key, text, flags)
        if self._verified.get(request) != response.signature:
            check_algorithm(own.key.public, flags, response.signature)
            verify(own.key.public, response.signature, text)
            if own.key.type != "ecdsa-sha2-nistp256" and text in self._texts:  # those are the same each time
                self._need(request not in self._verified, "a signature is another one than before")
                self._verified[request] = response.signature
        if own.signatures:
            own.signatures -= 1
            if not own.signatures:
                self._forget(own)

    def _login(self, key: PrivateKey) -> bytes:
        """What is signed to log in at the host that this connection is bound to."""
        assert self._bound
        writer = Writer().string(self._bound[1]).byte(50)
        for text in ("somebody", "ssh-connection", "publickey"):
            writer.text(text)
        name = "rsa-sha2-256" if key.type == "ssh-rsa" else key.type
        return bytes(writer.boolean(True).text(name).string(key.public.blob))

    def _some(self) -> Own:
        """A key that is held."""
        while not self._held:
            self._add()
        return self._random.choice([*self._held.values()])

    def _add(self) -> None:
        """Add a key, or add it anew, half of them within limits."""
        key = self._random.choice(self._keys)
        new = Own(key, f"comment {self._random.randrange(1000)}")
        limits: tuple[Constraint, ...] = ()
        seconds = self._random.randrange(1, 4)
        kind = self._random.randrange(6)
        if kind == 0:
            limits = (Lifetime(seconds),)
        elif kind == 1:
            new.signatures = seconds
            limits = (MaxSign(seconds),)
        elif kind == 2:
            new.host = self._random.choice(self._hosts)
            target = Hop("", "host", (HostKey(new.host.public.blob, False),))
            limits = (RestrictDestination(((Hop(), target),)),)
        before = time.monotonic()
        old = self._held.get(key.public.blob)
        reply = self._ask(
            raw.add(key, new.comment, *limits), raw.FAILURE if old and not self._sees(old) else raw.SUCCESS
        )
        if reply == b"\x06":
            if kind == 0:
                new.ends = before + seconds, time.monotonic() + seconds
            self._held[key.public.blob] = new

    def _remove(self) -> None:
        own = self._some()
        request = frame(RemoveIdentity(own.key.public.blob).payload())
        reply = self._ask(request, *self._right(own, raw.SUCCESS, self._sees(own)))
        if reply == b"\x05":
            self._check_refused(own)
        elif reply:
            self._forget(own)

    def _pipeline(self) -> None:
        """Three requests at once, of which the answers come in that order."""
        requests = raw.LIST, raw.sign(self._hosts[0], self._texts[0]), raw.LIST
        locks = self._locks.value
        self._connection.sendall(b"".join(requests))
        data = b""
        for request, kind in zip(requests, (raw.KEYS, raw.FAILURE, raw.KEYS), strict=True):
            while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
                more = self._connection.recv(65536)
                self._need(more, "the agent hung up")
                data += more
            end = 4 + int.from_bytes(data[:4], "big")
            self._judge(request, data[:end], locks, (kind,))
            data = data[end:]
        self._need(not data, "there are more replies than requests")

    def _bind(self) -> None:
        """Bind the connection to a session, which is possible once, and not with another's signature."""
        host, session = self._random.choice(self._hosts), self._random.randbytes(32)
        signed = session if self._random.random() < 0.8 else b"another session"
        request = SessionBind(host.public.blob, session, Signer(host).sign(signed), False)
        right = raw.SUCCESS if signed == session and not self._bound else 28
        reply = self._ask(frame(Extension(SessionBind.name, request.encode()).payload()), right)
        if reply == b"\x06":
            self._bound = host, session
        else:
            self._reconnect()  # what it may see now is another question

    def _extend(self) -> None:
        name, right = self._random.choice(
            ((QUERY, EXTENSION), (LIST_EXTENDED, raw.SUCCESS), (REPORT, EXTENSION), ("nobody@example.org", raw.FAILURE))
        )
        reply = self._ask(frame(Extension(name).payload()), right)
        if name == QUERY and reply:
            self._need(SessionBind.name.encode() in reply, "an extension is not named")

    def _malformed(self) -> None:
        """A request that is cut, goes on, or is none at all."""
        key = self._hosts[0]
        whole = self._random.choice(
            (raw.sign(key, b"text")[4:], raw.add(key, "comment")[4:], RemoveIdentity(b"x").payload())
        )
        cut = whole[: self._random.randrange(1, len(whole) - 4)]
        strange = bytes((self._random.choice(STRANGE),)) + self._random.randbytes(self._random.randrange(100))
        self._ask(frame(self._random.choice((cut, whole + b"more", strange))), raw.FAILURE)

    def _nonsense(self) -> None:
        """A length that cannot be, upon which the agent hangs up."""
        size = self._random.choice((0, MAX_MESSAGE + 1, 2**32 - 1))
        self._connection.sendall(size.to_bytes(4, "big"))
        self._need(not self._connection.recv(1), "a length that cannot be is believed")
        self.count += 1
        self._reconnect()

    def _hang_up(self) -> None:
        """Hang up in the middle of a request, or without reading the reply."""
        request = self._random.choice((raw.LIST, raw.sign(self._hosts[0], self._texts[-1])))
        self._connection.sendall(request[: self._random.randrange(1, len(request) + 1)])
        self.count += 1
        self._reconnect()

    def _stranger(self) -> None:
        """A key that is not held."""
        blob = self._hosts[0].public.blob
        self._ask(
            self._random.choice((raw.sign(self._hosts[0], b"text"), frame(RemoveIdentity(blob).payload()))), raw.FAILURE
        )

    def _reconnect(self) -> None:
        self._connection.close()
        self._connection = self._connect()
        self._bound = None

    def _connect(self) -> socket.socket:
        connection = raw.connect(self._path)
        connection.settimeout(raw.PATIENCE)
        return connection

    def _lock(self) -> None:
        """Lock the agent, ask it, guess, and unlock it."""
        own = self._some()
        self._locks.value += 1
        for request, reply in (
            (Lock(b"secret").payload(), b"\x06"),
            (raw.LIST[4:], b"\x0c\0\0\0\0"),
            (raw.sign(own.key, b"text")[4:], b"\x05"),
            (Unlock(b"guess").payload(), b"\x05"),
            (Unlock(b"secret").payload(), b"\x06"),
        ):
            self.count += 1
            found = raw.ask(self._connection, frame(request))[4:]
            self._need(found == reply, f"locked, a request of type {request[0]} had the reply {found[:99].hex()}")
        self._locks.value += 1
