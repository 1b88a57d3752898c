"""`pageantry ssh-agent`: an agent with ssh-agent(1)'s own command line and output, to be put in its place."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

import click

from ..errors import Error
from . import Failure
from .ssh_agent_words import Options, WrongWords, pid_of, removals, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..endpoints.listening import Listener
    from ..keyring import Keyring
    from ..sessions import Opener


class _Raw(click.Command):
    """Its words are read as ssh-agent(1) reads them, which click cannot, but for `--help`, which that does not know."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args == ["--help"]:
            return super().parse_args(ctx, args)
        ctx.params["words"] = args
        return []


@click.command(
    name="ssh-agent",
    cls=_Raw,
    short_help="Take the place of ssh-agent(1): its command line, its output.",
    options_metavar="[-c | -s] [-DdkTuU] [-a PATH] [-E HASH] [-O OPTION] [-P PATTERNS] [-t LIFE] [COMMAND...]",
    context_settings={"help_option_names": ["--help"]},
)
def ssh_agent(words: list[str]) -> None:
    """Start an agent as ssh-agent(1) does, with the same options, and print what the shell is to evaluate.

    With COMMAND, that is run with the agent, which ends when the command does. See ssh-agent(1) for the options.

    \b
    Examples:
      eval "$(pageantry ssh-agent -s)"
      pageantry ssh-agent -t 8h bash
      pageantry ssh-agent -k
    """
    try:
        options = Options(words, os.environ.get("SHELL", ""))
    except WrongWords as wrong:
        click.echo(str(wrong), nl=False, err=True)
        sys.exit(wrong.status)
    if sys.platform == "win32":
        raise Failure("ssh-agent(1) is a program of UNIX", "use pageantry serve")
    else:  # noqa: RET506 - so that type checkers know what is for which system
        _act(options)


if sys.platform != "win32":

    def _act(options: Options) -> None:
        from . import agent_process

        if options.count["k"]:
            _kill(options)
        elif options.count["u"]:
            _remove_stale(options)
        elif options.command:
            agent_process.beside(options.command, partial(_begin, options))
        elif options.foreground:
            _stay(options)
        else:
            child, place = agent_process.in_background(partial(_begin, options))
            try:
                _show(options, place, child, SSH_AGENT_PID=str(child))
            except OSError:
                os.kill(child, signal.SIGTERM)  # nobody would know of it
                raise

    def _kill(options: Options) -> None:
        """End the agent that SSH_AGENT_PID names, and print what its shell is to forget."""
        named = os.environ.get("SSH_AGENT_PID")
        if named is None:
            _fail("SSH_AGENT_PID not set, cannot kill agent")
        try:
            pid = pid_of(named)
            os.kill(pid, signal.SIGTERM)
        except ValueError as error:
            _fail(f'SSH_AGENT_PID="{named}", which is not a good PID: {error}')
        except OSError as error:
            _fail(f"kill: {error.strerror}")
        _print(removals(("SSH_AUTH_SOCK", "SSH_AGENT_PID"), csh=options.csh) + f"echo Agent pid {pid} killed;\n")

    def _fail(why: str) -> NoReturn:
        click.echo(why, err=True)
        sys.exit(1)

    def _stay(options: Options) -> None:
        """Be the agent, in this process, until a signal ends it; the exit status is that of ssh-agent(1) then."""
        from . import agent_process
        from .log import Log

        log = Log() if options.count["d"] else None
        say = log.say if log else None
        activated = _is_activated(options)
        begin = partial(_begin, options, say)
        agent_process.run(begin, say, ready=lambda listeners: _show(options, listeners[0].path, os.getpid()))
        if log:
            log.close()
        sys.exit(0 if activated else 2)

    def _show(options: Options, place: str, pid: int, **more: str) -> None:
        """Print what the shell is to evaluate."""
        variables = {"SSH_AUTH_SOCK": options.address or place, **more}
        _print(f"{settings(variables, csh=options.csh)}echo Agent pid {pid};\n")

    def _print(text: str) -> None:
        sys.stdout.buffer.write(os.fsencode(text))  # a path may have bytes that are no characters
        sys.stdout.flush()

    def _begin(options: Options, say: Callable[[str], object] | None = None) -> tuple[list[Listener], Opener, Keyring]:
        """Where the agent listens, and the agent."""
        from .. import sessions
        from ..keyring import Keyring
        from ..prompts import Person, ways

        keyring = Keyring(
            Person(ways(os.environ, terminal=False)),
            lifetime=options.lifetime or None,
            providers=options.providers,
            web_safe=options.web_safe,
            digest=options.digest,
            say=say,
        )
        return _listeners(options), sessions.to(keyring), keyring

    def _listeners(options: Options) -> list[Listener]:
        from ..endpoints import places, unix_listener
        from .common import say

        if _is_activated(options):
            from ..endpoints import activation

            if inherited := activation.inherited():
                return [*inherited]
        if options.address:
            return [unix_listener.listen(options.address)]
        if options.count["T"]:
            return [unix_listener.listen(places.temporary_path(os.environ))]
        if not options.count["U"]:
            try:
                _remove_stale(options)
            except Error as error:  # which is no reason not to start
                say(f"sockets that nobody listens at any more stay: {error}")
        return [unix_listener.listen(places.new_path(os.environ, say))]

    def _is_activated(options: Options) -> bool:
        """Whether systemd has made a socket for us, which ssh-agent(1) takes in the foreground alone."""
        return options.foreground and not options.address and os.environ.get("LISTEN_PID") == str(os.getpid())

    def _remove_stale(options: Options) -> None:
        from ..endpoints import places

        places.remove_stale(os.environ, any_host=options.count["u"] > 1)
