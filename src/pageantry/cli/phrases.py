"""Where the vault's master phrase comes from: the person, the settings, or a key in an agent."""

from __future__ import annotations

import os
import sys

import click

from ..errors import AddressError, AgentError, Error, NoSuchKey, SettingsError, Unreachable, WireError
from ..prompts import typed
from . import Failure
from .common import find, is_number, pick, reachable, read_secret, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..agent import Agent, Identity
    from ..keys.public import PublicKey
    from .vault_call import Call

#: derivepassphrase's names for agents, in our addresses; the empty one stands for SSH_AUTH_SOCK.
PROVIDERS: Final = {
    "native": "openssh" if sys.platform == "win32" else "",
    "posix": "",
    "ssh_auth_sock": "",
    "ssh_auth_sock_on_posix": "",
    "unix_domain": "",
    "ssh_auth_sock_on_windows": "",
    "windows": "",
    "windows_named_pipe": "",
    "openssh_on_windows": "openssh",
    "pageant_on_windows": "pageant",
}
_NO_KEY_HINT: Final = "use -p for a master phrase, or add an Ed25519 or RSA key to an agent (ssh-add)"


def master_phrase(call: Call, settings: dict[str, Any]) -> str:
    """The phrase for a passphrase with these effective settings."""
    if call.given("phrase"):
        return read_phrase(call)
    if call.given("key") or call.given("with_key"):
        return _phrase_of(call, *chosen_key(call))
    if phrase := settings.get("phrase"):
        return str(phrase)
    if text := settings.get("key"):
        return _phrase_of(call, *_configured_key(call, text), proven=True)
    try:
        agent, key = chosen_key(call)
    except (NoSuchKey, Unreachable) as error:
        raise Error(f"no phrase or key was given or saved, and {error}", _NO_KEY_HINT) from None
    return _phrase_of(call, agent, key)


def read_phrase(call: Call) -> str:
    """A master phrase from the person or a pipe, with a word about characters that may come differently next time."""
    phrase = read_secret("Passphrase: ")
    if not phrase:
        raise Failure("no phrase was given", "type it, or give it in a pipe")
    try:
        phrase.encode()
    except UnicodeEncodeError:
        raise Failure("the phrase is not UTF-8", "set the terminal, or what is in the pipe, to UTF-8") from None
    warn_unless_normal(call, phrase, call.service, "the phrase")
    return phrase


def warn_unless_normal(call: Call, phrase: str, service: str, what: str) -> None:
    """Say so when `phrase` is not in the normal form that config.toml asks for, by default NFC."""
    if phrase.isascii():
        return
    from unicodedata import is_normalized

    options = _user_options(call)
    form = options.get("unicode-normalization-form", {}).get(service) or options.get(
        "default-unicode-normalization-form", "NFC"
    )
    if form not in ("NFC", "NFD", "NFKC", "NFKD"):
        raise SettingsError(
            f"{call.store.folder}: config.toml names an unknown normalization form", "use NFC, NFD, NFKC or NFKD"
        )
    if not is_normalized(form, phrase):
        call.say(f"{what} is not in the normal form {form}: typed elsewhere it may look the same and be another")


def chosen_key(call: Call) -> tuple[Agent, PublicKey]:
    """The key to use, as -k or --with-key say, and the agent that holds it, connected."""
    name = call.options["with_key"]
    if name and not is_number(name):
        agent, identity = find(name, _address(call), call.say)
        return agent, identity.key.plain
    agent, identities = _suitable_keys(call)
    try:
        return agent, (pick(identities, name) if name else _one_of(call, agent, identities)).key
    except BaseException:
        agent.close()
        raise


def _suitable_keys(call: Call) -> tuple[Agent, list[Identity]]:
    """The first agent with suitable keys, and these; one whose keys have yet to prove themselves comes last."""
    from ..vault.phrase import suitable, suitable_identities

    unproven: tuple[Agent, list[Identity]] | None = None
    agent = None
    for agent in reachable(_address(call)):
        try:
            identities = suitable_identities(agent)
        except AgentError as error:
            agent.close()
            if call.options["agent"] is not None:
                raise
            call.say(f"{error}; it is passed over")
            continue
        if any(suitable(identity.key) for identity in identities):
            return agent, identities
        if identities and not unproven:
            unproven = agent, identities
        else:
            agent.close()
    if unproven:
        return unproven
    if agent is None:
        raise Unreachable("no SSH agent answers here", _NO_KEY_HINT)
    raise NoSuchKey("no agent that answers holds a suitable key (Ed25519, Ed448 or RSA)", _NO_KEY_HINT)


def _one_of(call: Call, agent: Agent, identities: list[Identity]) -> Identity:
    """The only key there is, or the one that the person picks."""
    if len(identities) == 1:
        identity = identities[0]
        call.say(f"using the key {identity.comment or identity.key.type} ({identity.fingerprint}) of {agent.address}")
        return identity
    say(f"Suitable keys of {agent.address}:")
    for number, identity in enumerate(identities, 1):
        say(f"[{number}] {identity.key.type} {identity.fingerprint}  {identity.comment}")
    while True:
        answer = _answer(f"Your selection? (1-{len(identities)}, leave empty to abort): ")
        if not answer:
            raise Failure("no key was chosen", "type its number, or name it: --with-key KEY")
        number = int(answer[:9]) if answer.isascii() and answer.isdecimal() else 0
        if 0 < number <= len(identities):
            return identities[number - 1]
        say(f"there is no key number {answer[:20]}")


def _answer(question: str) -> str:
    """A line from standard input."""
    by_hand = typed()
    # Not by click.prompt: its older versions print a blank to standard output, in front of the passphrase.
    click.echo(question, nl=False, err=True)
    line = sys.stdin.buffer.readline(1000)
    if not line or not by_hand:
        say("")  # nobody has ended the question's line
    return line.decode("utf-8", "replace").strip()


def _configured_key(call: Call, text: str) -> tuple[Agent, PublicKey]:
    """The key that the settings name, and the agent that holds it."""
    from ..discovery import connect
    from ..keys.public import PublicKey

    try:
        key = PublicKey.from_line(text)
    except WireError:
        raise SettingsError(
            "the key in the settings is no public key", "set another with -c -k, or forget it: -c --unset key"
        ) from None
    return connect(_address(call), holding=key.plain, say=call.say), key


def _phrase_of(call: Call, agent: Agent, key: PublicKey, *, proven: bool = False) -> str:
    from ..vault.phrase import phrase_from

    with agent:
        call.detail(f"the phrase is a signature by {key.fingerprint()} of {agent.address}")
        return phrase_from(agent, key, proven=proven, say=call.say)


def _address(call: Call) -> str | None:
    """The agent that the options or config.toml name; of a list there, the first that is one on this system."""
    if call.options["agent"] is not None:
        return str(call.options["agent"])
    if call.options["provider"] is not None:
        return _provided(call.options["provider"])
    providers = _user_options(call).get("ssh-agent-socket-provider", [])
    failure: Error | None = None
    for provider in providers if isinstance(providers, list) else [providers]:
        try:
            return _provided(provider)
        except (AddressError, Unreachable) as error:
            failure = failure or error
    if failure:
        raise failure
    return None


def _provided(provider: object) -> str:
    """The address that derivepassphrase's name for an agent stands for."""
    if not isinstance(provider, str) or provider not in PROVIDERS:
        raise AddressError(
            f"no agent socket provider is called {str(provider)[:40]!r}", f"there are {', '.join(PROVIDERS)}"
        )
    if "windows" in provider and sys.platform != "win32":
        raise AddressError(f"the agent socket provider {provider} is for Windows", "use native, or --agent ADDRESS")
    address = PROVIDERS[provider] or os.environ.get("SSH_AUTH_SOCK")
    if not address:
        raise Unreachable("SSH_AUTH_SOCK is not set", "start an agent, or name one: --agent ADDRESS")
    return address


def _user_options(call: Call) -> dict[str, Any]:
    """The section [vault] of config.toml beside the settings, in derivepassphrase's form."""
    data = call.store.read("config.toml")
    if data is None:
        return {}
    import tomllib

    where = os.path.join(call.store.folder, "config.toml")
    try:
        section = tomllib.loads(data.decode()).get("vault", {})
    except (ValueError, RecursionError):
        raise SettingsError(f"{where} is not TOML in UTF-8", "mend it, or take it away") from None
    if not isinstance(section, dict) or not isinstance(section.get("unicode-normalization-form", {}), dict):
        raise SettingsError(f"{where} has something else than a section [vault]", "mend it, or take it away")
    return section
