"""`pageantry serve`: an agent of our own."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import NamedTuple

import click

from ..errors import Error
from . import serving
from .common import as_seconds, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from ..endpoints.listening import Listener
    from ..keyring import Keyring
    from ..prompts import Way
    from ..sessions import Opener
    from .log import Log

_COMMAND: Final = "pageantry.command"


class Options(NamedTuple):
    """The words of the command line."""

    files: tuple[str, ...]
    listen: tuple[str, ...]
    never_ask: tuple[str, ...]
    openssh_config: str | None
    lifetime: int | None
    clear_after: int | None
    restrict_acl: bool
    remember: bool
    log: str | None
    quiet: bool
    json: bool


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
@click.option("--listen", metavar="ADDRESS", multiple=True, help="Where to listen; can be repeated.")
@click.option(
    "-t", "--lifetime", metavar="TIME", callback=as_seconds, help="Forget keys after 90 (seconds), 15m, 1h30m, …"
)
@click.option("--clear-after", metavar="TIME", callback=as_seconds, help="Ask again for keys unused for so long.")
@click.option("--never-ask", metavar="ADDRESS", multiple=True, help="Listen for programs that cannot wait; see above.")
@click.option("--openssh-config", metavar="FILE", help="Write a line there that leads OpenSSH here.")
@click.option("--restrict-acl", is_flag=True, help="Close the process to others of this user; Windows only.")
@click.option("--remember", is_flag=True, help="Have keys again after a restart; Windows only.")
@click.option("--log", metavar="FILE", help="Write the log there.")
@click.option("-q", "--quiet", is_flag=True, help="Write no log.")
@click.option("--json", is_flag=True, help="Print where it listens as JSON.")
@click.pass_context
def serve(ctx: click.Context, /, **given: Any) -> None:
    """Be an agent, which keeps keys for other programs, until Ctrl-C or SIGTERM; with a COMMAND, as long as that runs.

    Each KEYFILE is held from the start, an encrypted one as it is: its passphrase is asked for when the key is first
    used, by the program that SSH_ASKPASS names, else at this terminal (with a COMMAND, which has that for itself,
    before it starts). Keys may be added at any time (pageantry add, ssh-add, Pageant). The log on standard error tells
    who had what signed for whom.

    ADDRESS is unix:PATH or a path, or launchd:NAME for a socket of launchd's. Without any, it is a socket that systemd
    has handed over, or one in the runtime directory. On Windows it is pageant (which is what is taken without any),
    pageant-pipe or pageant-window alone, openssh, pipe:NAME, assuan:PATH, cygwin:PATH or winsock:PATH. The place is
    printed in the shell's words.

    Some programs give up before a person has answered. Where those are to connect, --never-ask listens: whoever comes
    in there sees no keys whose use would have to be asked for.

    \b
    Examples:
      pageantry serve
      pageantry serve --listen ~/.ssh/agent.sock ~/.ssh/id_ed25519
      pageantry serve -t 8h --clear-after 15m work.ppk
      pageantry serve ~/.ssh/deploy -- git push
    """
    from .. import hardening
    from . import agent_process
    from .log import Log

    options, command = Options(**given), ctx.meta.get(_COMMAND)
    if both := next((address for address in options.never_ask if address in options.listen), None):
        raise Error(f"{both} is to ask, and never to", "name another place for --never-ask")
    if not command:
        with ExitStack() as stack:
            log = None if options.quiet and not options.log else stack.enter_context(Log(options.log))
            if options.restrict_acl:
                _restrict(log.say if log else None)
            steps = _Serving(options, log, serving.ways(log, terminal=True), stack)
            agent_process.run(steps.begin, log.say if log else None, ready=steps.ready)
            if log:
                log.say(f"ended; all keys are {'put away' if options.remember else 'forgotten'}")
    elif options.never_ask or options.openssh_config or options.remember or options.log:
        only = "--never-ask, --openssh-config, --remember and --log"
        raise Error("a command has an agent for itself", f"leave {only} away")
    else:  # it has the terminal for itself, too
        if sys.platform != "win32":
            hardening.hide()  # and no more: this process becomes the command, which may have its core files
        if options.restrict_acl:
            _restrict(say)
        agent_process.beside(command, _Serving(options, None, serving.ways(None, terminal=False), new=True).begin)


class _Serving:
    """What `options` ask for, step by step; what it leaves open is closed by `stack`. `new` is a place of its own."""

    def __init__(
        self, options: Options, log: Log | None, ways: list[Way], stack: ExitStack | None = None, *, new: bool = False
    ) -> None:
        from ..prompts import secret
        from .add import opened

        self._options, self._log, self._ways, self._stack, self._new = options, log, ways, stack, new
        self._hasty: list[Listener] = []
        # Where there will be nobody to ask, passphrases are asked for now.
        self._clear = [] if ways else [one for path in options.files for one in opened(path, secret)]

    def begin(self) -> tuple[Sequence[Listener], Opener, Keyring]:
        """Read the keys, and listen."""
        from .. import remembered, sessions
        from ..keyring import Keyring
        from ..prompts import Person
        from ..server import Server
        from .log import not_stopped

        options, say = self._options, self._log.say if self._log else None
        memory = remembered.open(say=say) if options.remember else None
        keyring = Keyring(
            Person(self._ways),
            lifetime=options.lifetime,
            clear_after=options.clear_after,
            say=say,
            remember=memory,
        )
        for key, comment in self._clear:
            keyring.add(key, comment)
        for path in options.files if self._ways else ():
            _load(keyring, path)
        if memory:
            memory.load(keyring)
        with not_stopped():
            if options.never_ask and self._stack:
                self._hasty = serving.listen(options.never_ask)
                server = Server(self._hasty, sessions.to(keyring.unasked()), say)
                self._stack.callback(server.close)
            named = options.listen or self._hasty
            listeners = serving.listen(options.listen) if named else _unnamed(new=self._new)
        return listeners, sessions.to(keyring), keyring

    def ready(self, listeners: Sequence[Listener]) -> None:
        """Tell where it listens."""
        if self._stack:
            options, places = self._options, [*listeners, *self._hasty]
            serving.announce(places, self._log, self._stack, options.openssh_config, as_json=options.json)


def _load(keyring: Keyring, path: str) -> None:
    """Hold the key of a file as it is, and the same with the certificate beside it."""
    from ..keys.files import certificate_beside, parse, read_file

    data = read_file(path)
    public = parse(data, path).public
    certificate = certificate_beside(path, public) if public else None
    keyring.add_encrypted(data, path)
    if certificate:
        keyring.add_encrypted(data, path, certificate)


if sys.platform == "win32":

    def _restrict(tell: Callable[[str], object] | None) -> None:
        from ..hardening import restrict

        for line in restrict():
            if tell:
                tell(line)

    def _unnamed(*, new: bool) -> list[Listener]:
        """Where everybody looks; or, for a command alone, where nobody does."""
        from .. import winpipe

        return [winpipe.listen(f"pageantry-{os.urandom(16).hex()}")] if new else serving.listen(["pageant"])

else:

    def _restrict(tell: Callable[[str], object] | None) -> None:
        """Nothing: it is always so."""

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
