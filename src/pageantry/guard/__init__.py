"""A guard before an agent: sessions around sessions, which let pass what rules allow.

    Server(listeners, guarded(sessions.at(endpoint), RulesFile("guard.toml", say), person, say))

What passes, passes as it is, byte for byte, over the session's own connection; what does not is answered with FAILURE.
Of lists those keys pass that could be of use. Session-binds and queries always pass: a bind only ever limits what a key
may do. The guard follows them, as the agent behind it does, to know over which hosts a connection has come.
"""

from __future__ import annotations

from .session import guarded

__all__ = ["guarded"]
