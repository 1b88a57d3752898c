"""Every SSH agent, one Python.

    with pageantry.connect() as agent:
        for identity in agent.identities():
            print(identity)

Importing this loads nothing else: each name below comes from its module when it is first used.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from . import aio, errors, vault
    from ._version import __version__
    from .agent import Agent, Identity, SignFlags
    from .client import Client
    from .discovery import connect, locate
    from .endpoints import Endpoint
    from .errors import Error
    from .exposure import exposed
    from .for_paramiko import paramiko_keys
    from .keys.private import PrivateKey
    from .keys.public import PublicKey
    from .probing import Found

__all__ = [
    "Agent",
    "Client",
    "Endpoint",
    "Error",
    "Found",
    "Identity",
    "Keyring",
    "PrivateKey",
    "PublicKey",
    "SignFlags",
    "__version__",
    "aio",
    "connect",
    "errors",
    "exposed",
    "locate",
    "paramiko_keys",
    "vault",
]

_HOMES = {
    "__version__": "_version",
    "Agent": "agent",
    "Client": "client",
    "Endpoint": "endpoints",
    "Error": "errors",
    "Found": "probing",
    "Identity": "agent",
    "Keyring": "keyring",
    "PrivateKey": "keys.private",
    "PublicKey": "keys.public",
    "SignFlags": "agent",
    "connect": "discovery",
    "exposed": "exposure",
    "locate": "discovery",
    "paramiko_keys": "for_paramiko",
}


def __getattr__(name: str) -> object:
    if name in ("aio", "errors", "vault"):
        return __import__(f"{__name__}.{name}", fromlist=[name])
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # importlib would do this more nicely, for half a millisecond more
    value = globals()[name] = getattr(__import__(f"{__name__}.{_HOMES[name]}", fromlist=[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
