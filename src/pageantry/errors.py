"""Every error of the package: what happened and where, and in `hint` what to do about it.

`str(error)` is one line for a person; `error.hint` is the next step, or empty. No error carries a secret.

    Error
    ├── WireError             bytes that are not what the protocol says (also a ValueError)
    │   ├── UnsupportedKey        a key of a type or a shape this package cannot use
    │   └── UnsupportedConstraint a constraint that is not known, so what follows it cannot be read
    ├── AddressError          an address that names no way to an agent (also a ValueError)
    ├── AgentError            something between an agent and us
    │   ├── Unreachable           nobody answers there, or not the right one (also a ConnectionError)
    │   ├── Disconnected          the agent hung up in the middle (also a ConnectionError)
    │   ├── DeadlineExceeded      the agent took too long (also a TimeoutError)
    │   ├── Refused               the agent said FAILURE
    │   ├── Unsupported           the agent does not know this request or extension
    │   ├── BadReply              the agent's reply is not what was asked for
    │   └── NoSuchKey             no agent has that key
    ├── KeyFileError          a key file that cannot be read (also a ValueError)
    │   └── WrongPassphrase       it is encrypted, with another passphrase
    ├── NobodyToAsk           a person must be asked, and there is no terminal
    └── VaultError            settings, stores and derivation (see `pageantry.vault`)
        ├── ImpossibleSettings    no passphrase can satisfy these settings (also a ValueError)
        └── SettingsError         saved settings that cannot be read or written
"""


class Error(Exception):
    """The root of the tree.

    `str(error)` says in one line what happened and where; `hint` says in one line what to do. An error that is raised
    without a hint has that of its class, which may be empty.
    """

    hint = ""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        if hint:
            self.hint = hint


class WireError(Error, ValueError):
    """Bytes that are not what the protocol says: too short, too long, or of a wrong value."""

    hint = "it is damaged, cut off or too long; get it from its source once more"


class UnsupportedKey(WireError):
    """A key of a type or a shape that cannot be used here."""

    hint = "use a key of another type, such as Ed25519"


class UnsupportedConstraint(WireError):
    """A constraint that is not known: nothing after it can be read (RFC 9987, section 5.2.7)."""


class AddressError(Error, ValueError):
    """An address that names no way to an agent."""


class AgentError(Error):
    """Something between an agent and us."""


class Unreachable(AgentError, ConnectionError):
    """Nobody listens at the endpoint, or somebody whom we do not trust."""


class Disconnected(AgentError, ConnectionError):
    """The agent closed the connection before its reply was whole."""

    hint = "it may have ended, or hang up on what it does not like; see whether it still runs"


class DeadlineExceeded(AgentError, TimeoutError):
    """The agent did not answer, or not all of it, in time."""


class Refused(AgentError):
    """The agent said FAILURE: it will not, or cannot, do what was asked (RFC 9987, section 5.1)."""

    hint = "it may be locked, or not allow that"


class Unsupported(AgentError):
    """The agent does not know this request or extension."""

    hint = "use another agent for that"


class BadReply(AgentError):
    """The agent's reply is malformed, or is no answer to what was asked."""

    hint = "the agent is broken, or not what it seems: restart it, or use another"


class NoSuchKey(AgentError):
    """No agent that was asked has the key."""


class KeyFileError(Error, ValueError):
    """A key file that cannot be read: what it is, and where it breaks off."""


class WrongPassphrase(KeyFileError):
    """The key file is encrypted, and not with this passphrase."""


class NobodyToAsk(Error):
    """Something must be asked, and there is no terminal to ask at."""

    hint = "run it where it can ask, or give the answer in a pipe"


class VaultError(Error):
    """Settings, foreign stores and derivation."""


class ImpossibleSettings(VaultError, ValueError):
    """No passphrase can satisfy these settings."""


class SettingsError(VaultError):
    """Saved settings that cannot be read, understood or written."""
