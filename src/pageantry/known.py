"""Where agents listen: what the person named, then the places that known agents use, in order of preference."""

from __future__ import annotations

import os
import sys

from . import wsl
from .endpoints import PATHS, Endpoint, is_pipe, parse
from .errors import AddressError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

#: How far an agent can be probed, and what `reached` is called then.
PRESENT, LISTENING, CONNECTS, ANSWERS = range(4)
LEVELS: Final = ("present", "listening", "connects", "answers")


class Candidate:
    """A place where an agent may be.

    `agent` is whose place it is ("OpenSSH", "gpg-agent"; empty where that cannot be told), `source` who named it
    ("SSH_AUTH_SOCK"; empty where nobody did), `limit` how far it may be probed unasked: connecting to a socket of
    systemd's starts a service, and listing a password manager's keys may raise a window.
    """

    __slots__ = ("agent", "endpoint", "limit", "source")

    def __init__(self, endpoint: Endpoint, agent: str = "", source: str = "", limit: int = ANSWERS) -> None:
        self.endpoint = endpoint
        self.agent = agent
        self.source = source
        self.limit = limit


# Places below $XDG_RUNTIME_DIR. Those of systemd's user units exist before their agent does.
_RUNTIME: Final = (
    ("pageantry", "pageantry/agent", ANSWERS),
    ("pageantry", "pageantry.socket", PRESENT),
    ("OpenSSH", "ssh-agent", ANSWERS),
    ("OpenSSH", "ssh-agent.socket", PRESENT),
    ("OpenSSH", "openssh_agent", PRESENT),
    ("gcr", "gcr/ssh", PRESENT),
    ("gnome-keyring", "keyring/ssh", CONNECTS),
    ("gpg-agent", "gnupg/S.gpg-agent.ssh", PRESENT),
    ("ssh-tpm-agent", "ssh-tpm-agent.sock", PRESENT),
    ("yubikey-agent", "yubikey-agent/yubikey-agent.sock", PRESENT),
)

_HOME: Final = (
    ("gpg-agent", ".gnupg/S.gpg-agent.ssh", ANSWERS),
    ("1Password", ".1password/agent.sock", CONNECTS),
    ("Bitwarden", ".bitwarden-ssh-agent.sock", CONNECTS),
    ("Bitwarden", ".var/app/com.bitwarden.desktop/data/.bitwarden-ssh-agent.sock", CONNECTS),
)

_MAC_HOME: Final = (
    ("1Password", "Library/Group Containers/2BUA8C4S2C.com.1password/t/agent.sock", CONNECTS),
    ("Secretive", "Library/Containers/com.maxgoedjen.Secretive.SecretAgent/Data/socket.ssh", CONNECTS),
)


def candidates(environ: Mapping[str, str] | None = None) -> Iterator[Candidate]:
    """The places where agents may be, the likeliest first, each socket, pipe and window once.

    A place that somebody named is among them even where nothing is there: its absence is worth a word. Those come
    first, and until the others are asked for, nobody looks for any.
    """
    environ = os.environ if environ is None else environ
    seen = set()
    home = (environ.get("USERPROFILE") if os.name == "nt" else environ.get("HOME")) or os.path.expanduser("~")
    for places in (_named, _usual):
        for candidate in places(environ, home):
            identity = _identity(candidate.endpoint)
            if identity is None and candidate.source:
                identity = candidate.endpoint
            if identity is not None and identity not in seen:
                seen.add(identity)
                yield candidate


def _identity(endpoint: Endpoint) -> object:
    """What is the same for all names of one socket, pipe or window; None where there is none. Nothing is opened."""
    if endpoint.kind in PATHS:
        try:
            status = os.stat(endpoint.where)
        except (OSError, ValueError):
            return None
        return status.st_dev, status.st_ino
    if endpoint.kind in ("stdio", "keys") or os.name != "nt":  # what cannot be is said when it is tried
        return endpoint
    from . import winpipe
    from .endpoints import window

    try:
        if endpoint.kind == "pageant-window":
            window.check_presence()
            return endpoint
        name = endpoint.pipe_name()
        return name.lower() if name and winpipe.exists(name) else None
    except (Unreachable, OSError, ValueError):
        return None


def _named(environ: Mapping[str, str], home: str) -> Iterator[Candidate]:
    """What the SSH configuration and the environment name."""
    from .sshconfig import identity_agent

    named = []
    if configured := identity_agent(environ, home):
        named.append((configured[0], f"IdentityAgent in {configured[1]}", ""))
    for variable, agent in (
        ("SSH_AUTH_SOCK", ""),
        ("SSH_TPM_AUTH_SOCK", "ssh-tpm-agent"),
        ("BITWARDEN_SSH_AUTH_SOCK", "Bitwarden"),
    ):
        if environ.get(variable):
            named.append((environ[variable], variable, agent))
    for value, source, agent in named:
        endpoint = _named_endpoint(value)
        yield Candidate(endpoint, agent or _guess(endpoint, home), source)


def _named_endpoint(value: str) -> Endpoint:
    """The endpoint that a configuration or a variable names; one that fails when it is tried where there is none.

    Neither is a place to name a command in: what other programs take for a path must not start anything.
    """
    try:
        endpoint = parse(value)
    except AddressError:
        return Endpoint("pipe" if is_pipe(value) else "unix", value)
    if endpoint.kind == "stdio":
        return Endpoint("unix", value)
    if endpoint.kind in PATHS:
        from .endpoints import files

        try:
            return Endpoint(endpoint.kind, files.native(endpoint.where))
        except Unreachable:
            pass
    return endpoint


def _usual(environ: Mapping[str, str], home: str) -> Iterator[Candidate]:
    """What is there without being named."""
    if sys.platform == "win32":
        yield from on_windows(environ, home)
    else:
        yield from _at(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", _RUNTIME)
        if sys.platform == "darwin":
            yield from _at(home, _MAC_HOME)
            yield from _glob("/var/run", "com.apple.launchd.*/Listeners", "OpenSSH")
        yield from _glob(os.path.join(home, ".ssh", "agent"), "s.*", "OpenSSH")
        for directory in dict.fromkeys(("/tmp", environ.get("TMPDIR") or "/tmp")):  # noqa: S108 - where they are
            yield from _glob(directory, "ssh-*/agent.*", "OpenSSH")
            yield from _glob(directory, "pageant.*/pageant.*", "Pageant")
        if environ.get("PREFIX"):  # Termux
            yield from _at(environ["PREFIX"], (("OpenSSH", "var/run/ssh-agent.socket", ANSWERS),))
        yield from _at(home, _HOME)
        if wsl.version() and environ.get("WSL_DISTRO_NAME"):  # a container there has the kernel, and no Windows
            yield from _from_wsl(environ)


def on_windows(environ: Mapping[str, str], home: str) -> Iterator[Candidate]:
    """What is on Windows without being named."""
    from glob import escape, glob

    from .endpoints import programs, winsock

    yield Candidate(Endpoint("openssh"), "OpenSSH")
    yield Candidate(Endpoint("pageant-pipe"), "Pageant")
    yield Candidate(Endpoint("pageant-window"), "Pageant")
    directories = [environ[name] for name in ("LOCALAPPDATA", "APPDATA") if environ.get(name)]
    socket = programs.output("gpgconf", "--list-dirs", "agent-ssh-socket")
    for path in [socket] if socket else [os.path.join(one, "gnupg", "S.gpg-agent.ssh") for one in directories]:
        yield Candidate(Endpoint("assuan", os.path.abspath(path)), "gpg-agent")

    ours, temporary = os.path.join(home, ".ssh"), environ.get("TEMP") or os.path.join(home, "Temp")
    files = [(path, "OpenSSH") for path in glob(os.path.join(escape(temporary), "ssh-*", "agent.*"))]
    files += [(path, "OpenSSH") for path in glob(os.path.join(escape(ours), "agent", "s.*"))]
    files += [(os.path.join(ours, "omnisshagent-cygwin.sock"), "OmniSSHAgent")]
    files += [(path, "") for path in glob(os.path.join(escape(ours), "*")) if winsock.is_socket(path)]
    for kind in ("cygwin", "winsock"):
        for path, agent in files:
            if winsock.is_socket(path) == (kind == "winsock"):
                yield Candidate(Endpoint(kind, os.path.abspath(path)), agent)


def _from_wsl(environ: Mapping[str, str]) -> Iterator[Candidate]:
    """Windows' agents as seen from WSL: by a program there; or else one of them, to be told how it would be reached."""
    if not wsl.has_relay(environ):
        yield Candidate(Endpoint("openssh"), "OpenSSH on Windows")
        return
    for agent in ("openssh", "pageant"):
        name = {"openssh": "OpenSSH", "pageant": "Pageant"}[agent]
        yield Candidate(Endpoint("stdio", f"{wsl.RELAY} {agent}"), f"{name} on Windows", limit=PRESENT)


def _at(base: str, places: tuple[tuple[str, str, int], ...]) -> Iterator[Candidate]:
    for agent, path, limit in places:
        yield Candidate(Endpoint("unix", os.path.join(base, path)), agent, limit=limit)


def _glob(base: str, pattern: str, agent: str) -> Iterator[Candidate]:
    """Matches that are our own: others' in a shared directory are nobody's business here."""
    import glob

    for path in sorted(glob.glob(os.path.join(glob.escape(base), pattern))):
        try:
            if hasattr(os, "geteuid") and os.stat(path).st_uid == os.geteuid():
                yield Candidate(Endpoint("unix", path), agent)
        except OSError:
            continue


def _guess(endpoint: Endpoint, home: str) -> str:
    """Whose a named place is, going by the places above."""
    where = endpoint.where.replace(os.sep, "/")
    if endpoint.kind == "openssh":
        return "OpenSSH"
    if endpoint.kind.startswith("pageant") or (endpoint.kind == "pipe" and where.lower().startswith("pageant.")):
        return "Pageant"
    for agent, place, _ in (*_RUNTIME, *_HOME, *_MAC_HOME):
        if where.endswith("/" + place):
            return agent
    if ("/ssh-" in where and "/agent." in where) or where.startswith(f"{home.replace(os.sep, '/')}/.ssh/agent/"):
        return "OpenSSH"
    return ""
