"""Keys in memory, as an agent; and the same as each connection sees it."""

from __future__ import annotations

from contextlib import contextmanager

from .. import forwarding
from ..agent import Identity, Shared, SignFlags
from ..constraints import Confirm, Lifetime, MaxSign, RestrictDestination, SecurityKeyProvider
from ..errors import Error, NobodyToAsk, NoSuchKey, Refused, Unsupported, UnsupportedConstraint, UnsupportedKey
from ..extensions import AddEncrypted
from ..keys import signatures
from ..keys.signatures import Signer
from ..messages import AddIdentityConstrained, SessionBind
from ..prompts import never
from . import extending, hardware, questions
from .deferred import Deferred
from .holding import Held, Holding, line
from .locking import Locking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, Final

    from ..agent import Peer
    from ..constraints import Constraint
    from ..forwarding import Path
    from ..keys.private import PrivateKey
    from ..keys.public import PublicKey
    from ..prompts import Person
    from .holding import Private, Remembering


#: Bits of the shortest RSA key that is taken, as in OpenSSH.
MIN_RSA_BITS: Final = 1024
#: Bytes of the longest encrypted key file. An RSA key of 16384 bits takes 13 KiB.
MAX_FILE: Final = 64 * 1024


class _Common:
    """What all connections to an agent have in common."""

    def __init__(self, holding: Holding, person: Person | None, say: Callable[[str], object] | None) -> None:
        self.holding = holding
        self.locking = Locking()
        self.person = person
        self.say = say
        self.views: dict[Keyring, None] = {}  # a set would do, but for its order


class Keyring(Shared):
    """Keys in memory. Threads may share it, and the views that `open` gives.

    `person` is asked for passphrases and consent; without one, what must be asked is refused. Keys that are added
    without a lifetime of their own have `lifetime` seconds; the clear text of encrypted ones is forgotten when it was
    not used for `clear_after` seconds. None is for ever. `providers` are patterns of the libraries that may reach
    security keys, and `web_safe` those of the applications whose keys may sign what is no business of SSH's (None: all
    may), both as ssh-agent(1) has them. `say` is told in a line what was done for whom, and what was not, and why; its
    fingerprints and those of questions are of `digest`, sha256 or md5. `remember` has what is held without an end be
    there again in the next agent (see `remembered`); so there is no `lifetime` beside it.
    """

    address = "keyring"

    def __init__(
        self,
        person: Person | None = None,
        *,
        lifetime: int | None = None,
        clear_after: float | None = None,
        providers: str | None = None,
        web_safe: str | None = "ssh:*",
        digest: str = "sha256",
        say: Callable[[str], object] | None = None,
        remember: Remembering | None = None,
    ) -> None:
        if lifetime and remember:
            raise Error("keys that all have a lifetime cannot be remembered", "leave out the one or the other")
        self._common = _Common(Holding(clear_after, say, remember), person, say)
        self._lifetime = lifetime
        self._providers = providers
        self._web_safe = web_safe
        self._digest = digest
        self._peer: Peer | None = None
        self._path = forwarding.LOCAL
        self._gone: Callable[[], bool] = never
        self._asks = True

    def open(self, peer: Peer | None, gone: Callable[[], bool] | None = None) -> Keyring:
        """See `Shared.open`: a view has the same keys, and hops of its own."""
        return _View(self, peer, gone or never)

    def unasked(self) -> Keyring:
        """The same keys for clients that cannot wait for a person: those for which one is asked are not to be seen."""
        impatient = _View(self, None, never)
        impatient.close()  # it is nobody's own
        impatient._asks = False
        return impatient

    def close(self) -> None:
        """Forget all keys, and end all questions."""
        common = self._common
        common.locking.close()
        if common.person:
            common.person.close()
        common.holding.close()

    def forget(self) -> None:
        """Forget all keys, be it locked or not: the wish of who runs the agent, not of a client.

        They are not remembered any more, either: what comes back with the next agent was not forgotten.
        """
        self._common.holding.clear()
        self._note("forgot all keys")

    # Requests, as RFC 9987 has them

    def identities(self) -> list[Identity]:
        """See `Agent.identities`: those that this connection may see, and none while it is locked."""
        return [Identity(held.public, held.comment) for held in self.visible()]

    def listing_at_once(self) -> bytes | None:
        """See `Shared.listing_at_once`."""
        return self._common.holding.listing() if self._unlimited else None

    def sign(self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False) -> bytes:
        """See `Agent.sign`. A person may be asked first, for consent and for a passphrase."""
        held = self.held(key)
        with self._noted(f"sign with {held.label}"):
            signature = self._signature(held, data, flags)
        if verify:
            signatures.verify(key, signature, data)
        if self._common.say:
            self._tell("signed with", held, f", {questions.purpose(held, data, self._path)}")
        return signature

    def sign_at_once(self, key: bytes, data: bytes, flags: int) -> bytes | None:
        """See `Shared.sign_at_once`."""
        if self._unlimited and not self._common.say:
            held = self._common.holding.get(key)
            if held and held.free and isinstance(held.private, Signer) and held.private.quick:
                return held.private.sign(data, flags)
        return None

    def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        """See `Agent.add`. `UnsupportedKey` for one whose halves do not belong together."""
        with self._noted(f"add {key.public.fingerprint(self._digest)}"):
            self._add(key, comment, constraints)

    def add_encrypted(
        self,
        file: bytes,
        comment: str = "",
        certificate: PublicKey | None = None,
        constraints: Iterable[Constraint] = (),
    ) -> None:
        """Hold the key of `file`, the contents of a key file, which a person is asked to open when it is needed.

        One that is not encrypted is added as it is. Raises `KeyFileError`, `Refused`.
        """
        with self._noted("add an encrypted key"):
            self._add_encrypted(file, comment, certificate, constraints)

    def remove(self, key: PublicKey) -> None:
        """See `Agent.remove`."""
        held = self.held(key)
        self._common.holding.drop(held)
        self._tell("removed", held)

    def remove_all(self) -> None:
        """See `Agent.remove_all`; those that this connection may not see, too, as in OpenSSH's agent."""
        self._common.locking.check()
        self._common.holding.clear()
        self._note(f"removed all keys{self._caller()}")

    def lock(self, passphrase: bytes) -> None:
        """See `Agent.lock`. What came encrypted is encrypted again. An empty passphrase is refused."""
        with self._noted("lock"):
            self._common.locking.lock(passphrase)
        self._common.holding.forget()
        self._note(f"locked{self._caller()}")

    def unlock(self, passphrase: bytes) -> None:
        """See `Agent.unlock`. After a wrong passphrase this client, and no other, waits."""
        with self._noted("unlock"):
            self._common.locking.unlock(passphrase, self._asker)
        self._note(f"unlocked{self._caller()}")

    def extension(self, name: str, data: bytes = b"") -> bytes:
        """See `Agent.extension`: OpenSSH's session-bind, PuTTY's five, and those of `extensions`."""
        if name == SessionBind.name:
            return self._bind(data)
        self._common.locking.check()
        act = extending.EXTENSIONS.get(name)
        if act is None:
            raise Unsupported(f"the extension {name[:64]!r} is not known")
        return act(self, data)

    def query(self) -> list[str]:
        """The names of the extensions."""
        return list(extending.NAMES)

    # How they are granted

    @property
    def _unlimited(self) -> bool:
        """Whether this connection may do with each key whatever that key may do."""
        return self._path is forwarding.LOCAL and self._asks and not self._common.locking.locked

    def _may_see(self, held: Held) -> bool:
        return (self._asks or not held.asks) and forwarding.may_see(held.destinations, self._path)

    def _bind(self, data: bytes) -> bytes:
        """Bind this connection to a session. One that failed to, or that did while locked, is no local one any more."""
        with self._noted("bind a session"):
            before, self._path = self._path, self._path.attempt()
            self._common.locking.check()
            self._path = before.bind(data)
        return b""

    def visible(self) -> list[Held]:
        """The keys that this connection may see, in the order in which they came; none while it is locked."""
        if self._common.locking.locked:
            return []
        held = self._common.holding.all()
        return held if self._unlimited else [one for one in held if self._may_see(one)]

    def held(self, key: PublicKey) -> Held:
        """The key, if this connection may know of it. Raises `NoSuchKey`, `Unsupported` while it is locked."""
        self._common.locking.check()
        held = self._common.holding.get(key.blob)
        if held is None or not self._may_see(held):
            raise NoSuchKey(f"no key {key.fingerprint()} is held, or none for this connection")
        return held

    def connections(self) -> list[tuple[Peer | None, Path]]:
        """Who is connected, and over which hops; a connection that is not from this computer is told only of itself."""
        views = [self] if self._path.attempted else list(self._common.views)
        return [(view._peer, view._path) for view in views]

    def _signature(self, held: Held, data: bytes, flags: SignFlags) -> bytes:
        private = held.private
        if held.destinations:
            forwarding.check_use(held.destinations, self._path, held.public, data)
        if held.public.hardware and self._web_safe:
            hardware.check(held.public, data, self._web_safe)
        if held.confirm:
            if self._common.person is None:
                raise NobodyToAsk("there is nobody to ask for consent")
            question = questions.confirmation(held, data, self._path, self._peer)
            self._common.person.confirm(question, self._gone, self._asker)
        if isinstance(private, Deferred):
            question = questions.opening(held, data, self._path, self._peer)
            private = private.signer(question, self._gone, self._asker)
            self._common.holding.keep()
        self._common.locking.check()
        if not self._common.holding.spend(held):
            raise Refused("the key was removed or replaced meanwhile")
        if isinstance(private, Signer):
            return private.sign(data, flags)
        return hardware.signature(private, held.label, data, flags, self._common.person, self._gone, self._asker)

    def _add(self, key: PrivateKey, comment: str, constraints: Iterable[Constraint]) -> None:
        constraints = tuple(constraints)
        limits = _by_kind(constraints)
        provider = limits.pop(SecurityKeyProvider, None)
        private: Private
        if key.public.hardware:
            private = hardware.reached(key, provider, self._providers, self._path)
        elif provider:
            raise Refused("a library for security keys came with another kind of key", "add the key without it")
        else:
            if key.type == "ssh-rsa" and (key.public.bits or 0) < MIN_RSA_BITS:
                raise UnsupportedKey(f"an RSA key of {key.public.bits} bits; {MIN_RSA_BITS} is the least")
            private = Signer(key)
            private.check()
        self._put(key.public, comment, private, limits, AddIdentityConstrained(key, comment, constraints))

    def _add_encrypted(
        self, file: bytes, comment: str, certificate: PublicKey | None, constraints: Iterable[Constraint]
    ) -> None:
        from ..keys.files import parse

        if len(file) > MAX_FILE:
            raise Refused(f"a key file of {len(file)} bytes; {MAX_FILE} are believed")
        parsed = parse(file, f"the key file {line(comment)}".rstrip())
        comment = parsed.comment or comment
        if not parsed.encrypted:
            key, own = parsed.decrypt()
            self.add(key.certified(certificate) if certificate else key, own or comment, constraints)
            return
        if self._common.person is None:
            raise NobodyToAsk("nobody could be asked for its passphrase", "add the key decrypted: ssh-add FILE")
        deferred = Deferred(parsed, self._common.person, file)
        public = certificate or parsed.public or deferred.public
        if public.plain != deferred.public:
            raise Refused("the certificate is for another key than the file", "use the certificate of this key")
        if public.hardware:
            raise UnsupportedKey("the key of a security key cannot be held encrypted", "add it decrypted: ssh-add FILE")
        constraints = tuple(constraints)
        limits = _by_kind(constraints)
        for held in self._common.holding.encrypted(deferred.public):
            if isinstance(held.private, Deferred) and held.private.data == file and not (held.limited or limits):
                deferred = held.private  # one passphrase for a key and its certificates
        before = self._common.holding.get(public.blob)
        if before is None:
            entry = AddEncrypted(file, comment, certificate.blob if certificate else b"", constraints)
            self._put(public, comment, deferred, limits, entry, new=True)
        elif before.private is not deferred:
            # Nothing has proven that whoever adds it has the key: it must not lift limits, nor take the key's place.
            raise Refused("the key is held already", "remove it first")

    def _put(
        self,
        public: PublicKey,
        comment: str,
        private: Private,
        limits: dict[type, Any],
        entry: AddIdentityConstrained | AddEncrypted,
        *,
        new: bool = False,
    ) -> None:
        self._common.locking.check()
        holding = self._common.holding
        before = holding.get(public.blob)
        if before and not self._may_see(before):
            raise Refused("the key is held already, and not for this connection")
        lifetime, signatures = limits.pop(Lifetime, None), limits.pop(MaxSign, None)
        held = Held(
            public,
            comment,
            private,
            lifetime=lifetime.seconds if lifetime else self._lifetime,
            confirm=limits.pop(Confirm, None) is not None,
            signatures=signatures.signatures if signatures else None,
            destinations=limits.pop(RestrictDestination, None),
            digest=self._digest,
        )
        if limits:
            raise UnsupportedConstraint(f"{next(iter(limits)).__name__} is no limit of a key here")
        far = self._path.attempted  # what another host adds is for as long as this agent runs
        holding.put(held, None if far else entry, new=new)
        self._tell("added", held)

    def _tell(self, what: str, held: Held, more: str = "") -> None:
        if self._common.say:
            self._common.say(f"{what} {held.label}{self._caller()}{more}")

    @contextmanager
    def _noted(self, what: str) -> Iterator[None]:
        """Have the log say why something was refused."""
        try:
            yield
        except Error as error:
            self._note(f"refused to {what}{self._caller()}: {error}")
            raise

    def _note(self, line: str) -> None:
        if self._common.say:
            self._common.say(line)

    @property
    def _asker(self) -> object:
        """Whose questions are counted together."""
        return self._peer.pid if self._peer else None

    def _caller(self) -> str:
        """For whom something is done, for the log; nothing where that is this process itself."""
        return ""


class _View(Keyring):
    """A keyring as one connection sees it."""

    def __init__(self, keyring: Keyring, peer: Peer | None, gone: Callable[[], bool]) -> None:
        self.__dict__.update(keyring.__dict__)
        self._peer, self._gone, self._path = peer, gone, forwarding.LOCAL
        self._common.views[self] = None

    def close(self) -> None:
        """Leave the keyring as it is."""
        self._common.views.pop(self, None)

    def _caller(self) -> str:
        return f" for {questions.who(self._peer)}"


def _by_kind(constraints: Iterable[Constraint]) -> dict[type, Any]:
    """Constraints by their types. Raises `Refused` for one that is given twice, or that limits to nothing."""
    limits: dict[type, Any] = {}
    for constraint in constraints:
        if type(constraint) in limits:
            raise Refused(f"the constraint {type(constraint).__name__} is given twice")
        if isinstance(constraint, RestrictDestination):
            forwarding.check_limits(constraint)
        if constraint in (Lifetime(0), MaxSign(0)):
            raise Refused(f"{constraint} would allow nothing")
        limits[type(constraint)] = constraint
    return limits
