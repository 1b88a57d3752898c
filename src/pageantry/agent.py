"""The interface that every agent has, on both sides of a connection, and the values that pass through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntFlag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Protocol, Self

    from .constraints import Constraint
    from .keys.private import PrivateKey
    from .keys.public import PublicKey

    class Peer(Protocol):
        """The process at the other end of a connection, for people: a pid may be another's by now."""

        @property
        def pid(self) -> int | None:
            """Its number, where the system tells."""

        @property
        def account(self) -> str:
            """The user as whom it runs; empty where that is not known."""

        @property
        def program(self) -> str:
            """The path of the program that it runs; empty where that is not known."""


class SignFlags(IntFlag):
    """How an RSA key is to sign (RFC 9987, section 5.6.1). Without a flag it signs with SHA-1."""

    NONE = 0
    RSA_SHA2_256 = 2
    RSA_SHA2_512 = 4


class Identity:
    """A key that an agent holds: its public half and the comment it was added with."""

    __slots__ = ("comment", "key")

    key: PublicKey
    #: as the agent gave it; bytes that are not UTF-8 are kept as surrogates
    comment: str

    def __init__(self, key: PublicKey, comment: str = "") -> None:
        self.key = key
        self.comment = comment

    @property
    def fingerprint(self) -> str:
        """The key's SHA256 fingerprint."""
        return self.key.fingerprint()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and (self.key, self.comment) == (other.key, other.comment)

    def __hash__(self) -> int:
        return hash((self.key, self.comment))

    def __repr__(self) -> str:
        return f"<Identity {self.key.type} {self.fingerprint} {self.comment!r}>"

    def __str__(self) -> str:
        return self.key.line(self.comment)


class Agent(ABC):
    """Something that holds keys and signs with them.

    A client is one, with the keys at the other end of its connection; key files read in this process are one.
    Every method raises a subclass of `AgentError` when the agent did not do its work: `Refused` where it said no,
    `Unsupported` where it cannot do such a thing at all. What cannot even be asked for, such as a signature of more
    data than a message holds, raises another subclass of `Error`.
    """

    #: how many entries of the last list were no keys and were left out of it
    unreadable = 0

    #: what to call it by, such as "unix:/run/user/1000/ssh-agent"
    address: str

    @abstractmethod
    def identities(self) -> list[Identity]:
        """The keys that the agent shows us, in its order (RFC 9987, section 5.5)."""

    @abstractmethod
    def sign(self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False) -> bytes:
        """A signature of `data` by `key` in SSH's form: a string with the algorithm's name, then its own parts.

        The algorithm that came back is checked against the key and `flags`; `verify` checks the signature too, which
        imports `cryptography`. (RFC 9987, section 5.6.)
        """

    @abstractmethod
    def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        """Hand over `key`; it replaces the same key and its constraints (RFC 9987, section 5.2)."""

    @abstractmethod
    def remove(self, key: PublicKey) -> None:
        """Remove one key (RFC 9987, section 5.4)."""

    @abstractmethod
    def remove_all(self) -> None:
        """Remove every key (RFC 9987, section 5.4)."""

    @abstractmethod
    def lock(self, passphrase: bytes) -> None:
        """Suspend the agent until `unlock` with the same passphrase (RFC 9987, section 5.7)."""

    @abstractmethod
    def unlock(self, passphrase: bytes) -> None:
        """End a lock (RFC 9987, section 5.7)."""

    @abstractmethod
    def extension(self, name: str, data: bytes = b"") -> bytes:
        """The reply to an extension request, without its type and name (RFC 9987, section 5.8)."""

    @abstractmethod
    def query(self) -> list[str]:
        """The names of the extensions that the agent says it knows (section 5.8.1); empty where it cannot tell."""

    def close(self) -> None:  # noqa: B027 - an agent that holds nothing open need not say so
        """Let go of what the agent holds open. Closing twice does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Shared(Agent):
    """An agent that any number of threads and connections may share; each connection has a view of its own."""

    @abstractmethod
    def open(self, peer: Peer | None, gone: Callable[[], bool] | None = None) -> Shared:
        """The agent as a connection sees it that `peer` has made; `gone` tells whether its other end has left."""

    # What every login asks for, and one thread may answer for many connections

    @abstractmethod
    def listing_at_once(self) -> bytes | None:
        """The frame of an IDENTITIES_ANSWER with `identities`; None where it would have to be computed."""

    @abstractmethod
    def sign_at_once(self, key: bytes, data: bytes, flags: int) -> bytes | None:
        """As `sign` with the key of that blob; None where somebody has to be asked or told, or it takes a while."""
