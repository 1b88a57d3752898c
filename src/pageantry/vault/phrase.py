"""A phrase out of an SSH key: the signature of vault(1)'s UUID, which only the key's owner can make, and can again.

That only works with signatures that are the same each time. Ed25519 and Ed448 promise that, RSA's flagless SHA-1
signatures have no choice. DSA and ECDSA take a random number unless an agent derives that too, so they are signed
twice and compared. Hardware keys (sk-*) count up inside their signatures.
"""

from __future__ import annotations

from ..agent import Identity
from ..errors import UnsupportedKey, VaultError
from ..wire import Reader
from .derive import UUID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from ..agent import Agent
    from ..keys.public import PublicKey

_ALWAYS: Final = ("ssh-ed25519", "ssh-rsa", "ssh-ed448")
_DEPENDS: Final = ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-dss")

#: What `query` names where Pageant answers, whose DSA and ECDSA signatures are the same each time.
_PAGEANT: Final = "list-extended@putty.projects.tartarus.org"


def suitable(key: PublicKey, *, deterministic: bool = False) -> bool:
    """Whether `key` can make a phrase; `deterministic` says that its agent signs alike each time with any key."""
    return key.plain_type in _ALWAYS or (deterministic and key.plain_type in _DEPENDS)


def suitable_identities(agent: Agent) -> list[Identity]:
    """The keys of `agent` that can make a phrase, each once, certificates as their plain keys.

    DSA and ECDSA keys are among them where the agent says that it is Pageant, or where there are no others: then
    `phrase_from` puts them to the test. Raises `AgentError`.
    """
    plain: dict[PublicKey, Identity] = {}
    for identity in agent.identities():
        if suitable(identity.key, deterministic=True):
            plain.setdefault(identity.key.plain, Identity(identity.key.plain, identity.comment))
    sure = [one for one in plain.values() if suitable(one.key)]
    if not sure or (len(sure) < len(plain) and _PAGEANT in agent.query()):
        return list(plain.values())
    return sure


def phrase_from(
    agent: Agent, key: PublicKey, *, proven: bool = False, say: Callable[[str], object] = lambda _: None
) -> str:
    """The phrase that `key` in `agent` stands for, as vault(1) has it: base64 of a signature.

    A certificate stands for its plain key. The key signs twice, to show that the agent signs alike each time, unless
    it is RSA, whose signatures have no choice, or `proven` before and of a kind that promises it. `say` is given a
    word about what may surprise. Raises `UnsupportedKey` for a key that can never make one, `VaultError`
    where the agent signs differently each time, `AgentError` where it does not sign.
    """
    from binascii import b2a_base64

    plain = key.plain
    if not suitable(plain, deterministic=True):
        raise UnsupportedKey(
            f"a key of type {plain.type} makes another signature each time, or is not known here",
            "use an Ed25519 or RSA key",
        )
    signature = agent.sign(plain, UUID.encode(), verify=True)
    trusted = plain.type == "ssh-rsa" or (proven and plain.type in _ALWAYS)
    if not trusted and agent.sign(plain, UUID.encode(), verify=True) != signature:
        raise VaultError(
            f"the agent signs differently each time with {plain.fingerprint()}, so no passphrase would come again",
            "use an Ed25519 or RSA key",
        )
    reader = Reader(signature)
    reader.string()  # the algorithm's name
    inner = reader.string()
    reader.end()
    if plain.type == "ssh-rsa" and (inner[:1] == b"\0" or len(inner) < ((plain.bits or 0) + 7) // 8):
        say(
            "this key's signature begins with a zero byte, which OpenSSH's agent writes and PuTTY's leaves out: "
            "the passphrases from the one are not those from the other"
        )
    return b2a_base64(inner, newline=False).decode("ascii")
