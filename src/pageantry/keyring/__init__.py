"""Keys in memory, as an agent: the one that `pageantry serve` serves, or one without any server.

    keyring = Keyring(person)        # an agent, for this very process
    view = keyring.open(peer)        # the same for a connection, with hops of its own

Messages, limits and refusals are those of OpenSSH's agent (RFC 9987; its PROTOCOL.agent); keys that come as encrypted
files stay encrypted until they are needed, as Pageant has it. What must be asked is asked by a `prompts.Person`; while
that thinks, only the request that needs the answer waits.
"""

from __future__ import annotations

from .memory import Keyring

__all__ = ["Keyring"]
