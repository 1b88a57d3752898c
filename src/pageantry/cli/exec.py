"""`pageantry exec`: a command, with any agent as its SSH_AUTH_SOCK."""

from __future__ import annotations

import os
import signal
import sys

import click

from ..errors import Error
from .agent_process import become
from .common import agent_option, open_agent, say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from ..agent import Agent
    from ..exposure import Exposure

    Environ = dict[str, str]


@click.command(
    name="exec",
    short_help="Run a command with any agent as its SSH_AUTH_SOCK.",
    context_settings={"allow_interspersed_args": False},
)
@agent_option
@click.argument("command", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(address: str | None, command: tuple[str, ...]) -> NoReturn:  # noqa: A001 - it is the command's name
    """Run COMMAND with SSH_AUTH_SOCK leading to an agent, whatever way that listens.

    The command has the terminal, the signals and the exit status. Where the agent listens on a socket (on Windows, on a
    pipe) already, the command is led there itself; any other is offered on a private one until the command ends.

    \b
    Examples:
      pageantry exec --agent keys:~/.ssh/deploy -- git push
      pageantry exec --agent 'stdio:pageantry.exe relay pageant' -- git pull
      pageantry exec --agent pageant -- ssh example.org
    """
    from ..endpoints import parse

    if not command[0]:
        raise Error("the command has no name", "give a program; perhaps a variable is empty that was to name it")
    environ = dict(os.environ)
    environ.pop("SSH_AGENT_PID", None)  # that of another agent
    if address is not None and parse(address).kind == "stdio":
        # A program may ask a person something, so it is not started just to see whether it answers.
        from .. import sessions
        from ..exposure import Exposure

        _run(command, environ, Exposure(sessions.at(parse(address)), say))
    agent = open_agent(address)
    if place := _place(agent):
        agent.close()
        become(command, environ | {"SSH_AUTH_SOCK": place})
    from ..exposure import exposed
    from ..keyfiles import KeyFiles

    if isinstance(agent, KeyFiles):
        agent.decrypt()  # it could not ask for passphrases while the command has the terminal
    _run(command, environ, exposed(agent, say=say))


if sys.platform == "win32":

    def _place(agent: Agent) -> str | None:
        """The pipe that the agent was reached by, if it was."""
        from .. import winpipe
        from ..client import Client

        connection = agent._connection if isinstance(agent, Client) else None
        return connection.path if isinstance(connection, winpipe.Pipe) else None

    def _run(command: tuple[str, ...], environ: Environ, exposure: Exposure) -> NoReturn:
        """Run the command while the agent is exposed, and end as it does."""
        with exposure as place:
            become(command, environ | {"SSH_AUTH_SOCK": place})

else:
    from stat import S_ISSOCK

    from .agent_process import watch

    def _place(agent: Agent) -> str | None:
        """The socket that the agent was reached by, if it was."""
        from ..endpoints import parse

        endpoint = parse(agent.address)
        return endpoint.where if endpoint.kind == "unix" and S_ISSOCK(os.stat(endpoint.where).st_mode) else None

    def _run(command: tuple[str, ...], environ: Environ, exposure: Exposure) -> NoReturn:
        """Go on as the command, while a child of this process serves the agent, as ssh-agent(1) does it."""
        try:
            command_ended = watch()
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the child knows that it is not its
            child = os.fork()
        except BaseException:
            exposure.close()
            raise
        if child == 0:
            _serve(exposure, command_ended, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        become(command, environ | {"SSH_AUTH_SOCK": exposure.address})

    def _serve(exposure: Exposure, command_ended: Callable[[], object], mask: set[int]) -> NoReturn:
        """Serve until the command has ended. What the terminal and others tell the two of us is for that alone.

        `mask` has the signals to be blocked from when those are seen to.
        """
        try:
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTTOU):
                signal.signal(number, signal.SIG_IGN)
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                signal.signal(number, lambda *_: None)  # programs that we start are not to ignore them
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            null = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1):
                os.dup2(null, descriptor)
            with exposure:
                command_ended()
        finally:
            exposure.close()
            os._exit(0)
