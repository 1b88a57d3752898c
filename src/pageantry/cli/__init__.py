"""The command: one module each, loaded when it is called. Only here are words, tables and exit codes."""

from __future__ import annotations

import gc

gc.disable()  # while modules load, nothing is garbage; looking for it takes a tenth of a short command's time

import io  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402

import click  # noqa: E402

from .._version import __version__  # noqa: E402
from ..errors import Error  # noqa: E402

gc.enable()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

#: Where each command lives: its module below this one, and its name there.
_COMMANDS: Final = {
    "agents": "agents",
    "keys": "keys",
    "sign": "sign",
    "add": "add",
    "remove": "add",
    "reencrypt": "add",
    "lock": "lock",
    "unlock": "lock",
    "vault": "vault",
    "export": "export",
    "exec": "exec",
    "relay": "relay",
    "bridge": "bridge",
    "serve": "serve",
    "ssh-agent": "ssh_agent",
    "service": "service",
}


class Failure(click.ClickException):
    """What went wrong, in one line; what to do about it, in another. Exit status 1."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint

    def show(self, file: Any = None) -> None:
        """Print both lines to standard error."""
        from .common import say

        say(f"pageantry: {self.message}")
        if self.hint:
            say(f"  {self.hint}")


class _Commands(click.Group):
    """Commands that are imported when they are needed, and errors that are told to a person."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        from importlib import import_module

        command = getattr(import_module(f"{__name__}.{_COMMANDS[cmd_name]}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            _mend_streams()
            return super().main(*args, **kwargs)
        except OSError as error:
            if not error.filename:  # standard output; what is left for it would fail once more at the end
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            what = f"{error.filename or 'standard output'}: {error.strerror or error}"
            Failure(what, "see whether there is room, and whether you may; nothing more was done").show()
        except Failure as failure:
            failure.show()
        sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            gc.freeze()  # leaves nothing to look through at the end
        except (KeyboardInterrupt, EOFError, click.Abort):
            click.echo(err=True)  # ends the line of the prompt
            raise Failure("interrupted", "nothing more was done; run it again") from None
        except Error as error:
            raise Failure(str(error), error.hint) from None
        return result


def _mend_streams() -> None:
    """Let no stream be missing, as with `<&-`, and no character be one that it cannot show."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - open as long as the process
    if sys.platform == "win32" and sys.stdout is None and sys.stderr is None:  # pythonw.exe, which nobody reads
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - see above
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - see above
    if sys.stdout is None:
        raise Failure("there is no standard output to write to", f"send it to a file, or to {os.devnull}")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(newline="\n")  # no script wants a carriage return at the end of its passphrase


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="pageantry %(version)s")
@click.option("--json", "as_json", is_flag=True, help="Without a command: the list of agents as JSON.")
@click.pass_context
def main(ctx: click.Context, as_json: bool) -> None:
    """Find the SSH agents of this machine, use the keys they hold, and derive passphrases from them.

    Without a command: show every agent, how it is reached, and what it holds.

    \b
    Examples:
      pageantry                            what is here
      pageantry vault example.org          a passphrase from the key in your agent
      pageantry vault -p example.org       a passphrase from a master phrase
      pageantry sign me@home report.pdf    sign a file
    """
    if ctx.invoked_subcommand is None:
        from .agents import agents

        ctx.invoke(agents, as_json=as_json)
    elif as_json:
        raise click.UsageError("--json goes behind the command")
