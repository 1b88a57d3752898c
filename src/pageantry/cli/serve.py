"""`pageantry serve`: an agent of our own."""

from __future__ import annotations

import os
import sys

import click

from ..errors import AddressError, Error
from .common import as_seconds, print_json, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from ..endpoints import Endpoint
    from ..keyring import Keyring
    from ..prompts import Way
    from ..server import Listener
    from .log import Log

_COMMAND: Final = "pageantry.command"


class _Serve(click.Command):
    """A command line that may have another one behind `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            end = args.index("--")
            args, ctx.meta[_COMMAND] = args[:end], args[end + 1 :]
            if not ctx.meta[_COMMAND] or not ctx.meta[_COMMAND][0]:
                say("pageantry: there is no command behind --; give one, or leave -- away")
                ctx.exit(2)
        return super().parse_args(ctx, args)


@click.command(cls=_Serve, short_help="Be an agent, which keeps keys for other programs.")
@click.argument("files", metavar="[KEYFILE]... [-- COMMAND...]", nargs=-1, type=click.Path())
@click.option("--listen", "addresses", metavar="ADDRESS", multiple=True, help="Where to listen; can be repeated.")
@click.option(
    "-t", "--lifetime", metavar="TIME", callback=as_seconds, help="Forget keys after 90 (seconds), 15m, 1h30m, …"
)
@click.option("--clear-after", metavar="TIME", callback=as_seconds, help="Ask again for keys unused for so long.")
@click.option("-q", "--quiet", is_flag=True, help="Write no log.")
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as JSON.")
@click.pass_context
def serve(
    ctx: click.Context,
    files: tuple[str, ...],
    addresses: tuple[str, ...],
    lifetime: int | None,
    clear_after: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Be an agent, which keeps keys for other programs, until Ctrl-C or SIGTERM; with a COMMAND, as long as that runs.

    Each KEYFILE is held from the start, an encrypted one as it is: its passphrase is asked for when the key is first
    used, by the program that SSH_ASKPASS names, else at this terminal (with a COMMAND, which has that for itself,
    before it starts). Keys may be added at any time (pageantry add, ssh-add, Pageant). The log on standard error tells
    who had what signed for whom.

    ADDRESS is unix:PATH or a path, launchd:NAME for a socket of launchd's, on Windows pipe:NAME. Without any, it is a
    socket that systemd has handed over, or one in the runtime directory. The place is printed in the shell's words.

    \b
    Examples:
      pageantry serve
      pageantry serve --listen ~/.ssh/agent.sock ~/.ssh/id_ed25519
      pageantry serve -t 8h --clear-after 15m work.ppk
      pageantry serve ~/.ssh/deploy -- git push
    """
    from .. import hardening
    from ..keyring import Keyring
    from ..prompts import Person, secret
    from . import agent_process
    from .add import opened
    from .log import Log, not_stopped

    command = ctx.meta.get(_COMMAND)
    log = None if quiet or command else Log()  # a command has the terminal for itself
    say_so = log.say if log else None
    ways = _ways(log, terminal=not command)
    if command and sys.platform != "win32":
        hardening.hide()  # and no more: this process becomes the command, which may have its core files
    in_clear = [] if ways else [one for path in files for one in opened(path, secret)]  # nobody to ask later

    def begin() -> tuple[Sequence[Listener], Keyring]:
        keyring = Keyring(Person(ways), lifetime=lifetime, clear_after=clear_after, say=say_so)
        for key, comment in in_clear:
            keyring.add(key, comment)
        for path in files if ways else ():
            _load(keyring, path)
        with not_stopped():
            return _listeners(addresses, new=bool(command)), keyring

    def ready(listeners: Sequence[Listener]) -> None:
        with not_stopped():
            _announce([listener.path for listener in listeners], log, as_json=as_json)

    if command:
        agent_process.beside(command, begin)
    try:
        agent_process.run(begin, say_so, ready=ready)
        if log:
            log.say("ended; all keys are forgotten")
    finally:
        if log:
            log.close()


def _announce(places: Sequence[str], log: Log | None, *, as_json: bool) -> None:
    if log:
        log.flush()
    if as_json:
        print_json({"listens": places, "pid": os.getpid()})
    else:
        click.echo(_setting(places[0]))
    sys.stdout.flush()
    if log:
        end = " until Ctrl-C" if sys.stderr.isatty() else ""
        for place in places:
            log.say(f"listening at {place}{end}")


def _ways(log: Log | None, *, terminal: bool) -> list[Way]:
    """The ways to ask a person while it runs: a program, then the terminal, on which the log waits meanwhile."""
    from ..prompts import ways

    found = ways(os.environ, terminal=False)
    if terminal and sys.platform != "win32":
        from ..terminal import Terminal

        found.append(log.between(Terminal()) if log else Terminal())
    return found


def _load(keyring: Keyring, path: str) -> None:
    """Hold the key of a file as it is, and the same with the certificate beside it."""
    from ..keys.files import certificate_beside, parse, read_file

    data = read_file(path)
    public = parse(data, path).public
    certificate = certificate_beside(path, public) if public else None
    keyring.add_encrypted(data, path)
    if certificate:
        keyring.add_encrypted(data, path, certificate)


def _listeners(addresses: Sequence[str], *, new: bool) -> list[Listener]:
    """What listens at all of them, or nothing and an error; without any at the usual place, or at a `new` one."""
    listeners: list[Listener] = []
    try:
        for address in addresses:
            listeners += _listen(address)
    except BaseException:
        for listener in listeners:
            listener.close()
        raise
    return listeners or _unnamed(new=new)


def _endpoint(address: str, kind: str, use: str) -> Endpoint:
    """The place of that kind that `address` names. Raises `AddressError` for any other, and says what to `use`."""
    from ..endpoints import parse

    try:
        endpoint = parse(address)
    except AddressError as error:
        raise AddressError(str(error), use) from None
    if endpoint.kind != kind:
        raise AddressError(f"an agent cannot be served at {address}", use)
    return endpoint


if sys.platform == "win32":

    def _setting(place: str) -> str:
        return f"$env:SSH_AUTH_SOCK = '{place}'"

    def _listen(address: str) -> list[Listener]:
        from .. import winpipe

        endpoint = _endpoint(address, "pipe", "use pipe:NAME")
        try:
            return [winpipe.listen(endpoint.where)]
        except FileExistsError:
            raise Error(f"{address} is another program's", "choose another name, or end that program") from None

    def _unnamed(*, new: bool) -> list[Listener]:
        raise AddressError("an agent has no usual place here yet", "give it one: --listen pipe:NAME")

else:

    def _setting(place: str) -> str:
        from shlex import quote

        return f"SSH_AUTH_SOCK={quote(place)}; export SSH_AUTH_SOCK;"

    def _listen(address: str) -> list[Listener]:
        from ..endpoints import activation, unix_listener

        kind, colon, name = address.partition(":")
        if colon and kind == "launchd":
            return list(activation.launchd(name))
        endpoint = _endpoint(address, "unix", "use unix:PATH, or a path with a slash")
        return [unix_listener.listen(endpoint.where)]

    def _unnamed(*, new: bool) -> list[Listener]:
        """What systemd hands over, or a socket in the runtime directory; for want of one, where OpenSSH's are."""
        from ..endpoints import activation, places, unix_listener

        inherited = [] if new else activation.inherited()
        if inherited:
            return [*inherited]
        path = None if new else _usual_path()
        return [unix_listener.listen(path or places.new_path(os.environ, say))]

    def _usual_path() -> str | None:
        """The path in the runtime directory, if there is one that is ours."""
        from ..endpoints import directories

        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if not os.path.isabs(runtime):
            return None
        directory = os.path.join(runtime, "pageantry")
        try:
            directories.check(runtime)  # after su(1), which keeps the variable, it is another user's
            directories.make_private(directory)
        except Error as error:
            why = str(error)
        except OSError as error:
            why = f"cannot listen in {directory}: {error.strerror}"
        else:
            return os.path.join(directory, "agent")
        say(f"{why}; listening elsewhere")
        return None
