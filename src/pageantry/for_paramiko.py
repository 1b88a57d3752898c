"""The keys of any agent, for paramiko, whose own client knows few kinds of agents.

with pageantry.connect() as agent:
    for key in pageantry.paramiko_keys(agent):
        print(key.comment, key.fingerprint)
    client.connect("example.org", pkey=key)
"""

from __future__ import annotations

import paramiko

from .agent import SignFlags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .agent import Agent, Identity

_FLAGS: Final = {"rsa-sha2-256": SignFlags.RSA_SHA2_256, "rsa-sha2-512": SignFlags.RSA_SHA2_512}
_CERTIFIED: Final = "-cert-v01@openssh.com"


class ParamikoKey(paramiko.PKey):  # type: ignore[misc]  # paramiko has no types
    """A key that `agent` holds, as `paramiko.Transport.auth_publickey` and `paramiko.SSHClient.connect` take it.

    `comment` is the one that it has in the agent. What the agent refuses raises its own `pageantry.Error`.
    """

    public_blob = None

    def __init__(self, agent: Agent, identity: Identity) -> None:
        super().__init__()
        self._agent = agent
        self._key = identity.key
        self.comment = identity.comment

    def asbytes(self) -> bytes:
        """The public key, or the certificate."""
        return self._key.blob

    def get_name(self) -> str:
        """The key's type, such as ssh-ed25519."""
        return self._key.type

    def get_bits(self) -> int:
        """The key's size; 0 where that is not known."""
        return self._key.bits or 0

    def can_sign(self) -> bool:
        """Yes."""
        return True

    def sign_ssh_data(self, data: bytes, algorithm: str | None = None) -> bytes:
        """A signature by the agent. Raises `pageantry.Error`."""
        return self._agent.sign(self._key, data, _FLAGS.get((algorithm or "").removesuffix(_CERTIFIED), SignFlags.NONE))

    @property
    def _fields(self) -> tuple[str, bytes]:
        """What makes two keys the same."""
        return self._key.type, self._key.blob


def paramiko_keys(agent: Agent) -> list[ParamikoKey]:
    """The keys that `agent` lists now, in its order. They are of use as long as it is open. Needs paramiko."""
    return [ParamikoKey(agent, identity) for identity in agent.identities()]
