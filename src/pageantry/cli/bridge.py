"""`pageantry bridge`: the agents that there are, in the way that a program wants."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import NamedTuple

import click

from ..errors import Error
from . import serving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from ..endpoints.listening import Listener
    from ..keyring import Keyring
    from ..rules import Rules
    from ..sessions import Opener
    from ..telling import Exchange
    from .log import Log

#: What stands for standard input and output among the places.
_STANDARD: Final = "stdio:"


class Options(NamedTuple):
    """The words of the command line."""

    agents: tuple[str, ...]
    to: tuple[str, ...]
    add_to: str | None
    read_only: bool
    guard: str | None
    openssh_config: str | None
    log: str | None
    quiet: bool
    json: bool


@click.command(short_help="Offer agents in another way, or several as one.")
@click.argument("agents", metavar="FROM...", nargs=-1, required=True)
@click.option("--to", metavar="ADDRESS", multiple=True, required=True, help="Where to listen; can be repeated.")
@click.option("--add-to", metavar="FROM", help="Which of several agents gets keys that are added. Default: the first.")
@click.option("--read-only", is_flag=True, help="Let lists and signatures pass, and nothing that changes an agent.")
@click.option("--guard", metavar="FILE", help="Rules for what may pass, and what a person is asked for.")
@click.option("--openssh-config", metavar="FILE", help="Write a line there that leads OpenSSH here.")
@click.option("--log", metavar="FILE", help="Write the log there.")
@click.option("-q", "--quiet", is_flag=True, help="Write no log.")
@click.option("--json", is_flag=True, help="Print where it listens, and log, as JSON, a line each.")
def bridge(**given: Any) -> None:
    """Offer the agents at FROM to programs that look for one at ADDRESS, until Ctrl-C or SIGTERM.

    Several agents are one: their keys are listed one after the other, and each signs with its own. Every message is
    passed on as it is, over a connection of its own for each that comes in, so that keys that are limited to
    destinations work as before. FROM is any address that --agent takes; ADDRESS any that serve --listen takes, or
    stdio: for standard input and output. The log on standard error tells who asked what of which key.

    \b
    Examples:
      pageantry bridge pageant --to openssh                Pageant for all that know OpenSSH's pipe
      pageantry bridge openssh --to pageant-window         and the other way round
      pageantry bridge pageant --to unix:C:\\Users\\me\\agent.sock       for WSL 1
      pageantry bridge "$SSH_AUTH_SOCK" keys:deploy.ppk --to ~/.ssh/both
      pageantry bridge "$SSH_AUTH_SOCK" --read-only --to ~/.ssh/read-only
      pageantry bridge 'stdio:ssh -T example.org pageantry relay /run/agent' --to ~/.ssh/theirs
    """
    from . import agent_process, relay
    from .log import Log

    options = Options(**given)
    standard = _STANDARD in options.to
    if standard and len(options.to) > 1:
        raise Error(f"{_STANDARD} is a place for one", "start a bridge for each place")
    with ExitStack() as stack:
        log = None if (options.quiet or standard) and not options.log else Log(options.log, plain=options.json)
        if log:
            stack.enter_context(log)
        bridging = _Bridging(options, log, stack)
        if standard:
            relay.converse(bridging.opener(terminal=False), " ".join(options.agents))
            return
        agent_process.run(bridging.begin, log.say if log else None, ready=bridging.ready)
        if log and not options.json:
            log.say("ended")


def check(given: dict[str, Any]) -> None:
    """See whether there could be a bridge with these options, with nobody at its standard streams; `Error` if not."""
    if _STANDARD in given["to"]:
        raise Error(f"nobody is at the other end of {_STANDARD}", "name an address")
    with ExitStack() as stack:
        _Bridging(Options(**given), None, stack)


class _Bridging:
    """What `options` ask for, step by step; what it leaves open is closed by `stack`."""

    def __init__(self, options: Options, log: Log | None, stack: ExitStack) -> None:
        from ..bridging import Bridge
        from ..endpoints import parse

        self._options, self._log, self._stack = options, log, stack
        self._say = log.say if log else None
        agents = [parse(address) for address in options.agents]
        add_to = parse(options.add_to) if options.add_to else agents[0]
        if add_to not in agents:
            raise Error(f"keys cannot be added to {options.add_to}, which is none of the agents", "name one of them")
        self._rules = self._read_rules()
        self._bridge = Bridge(agents)
        self._agents = self._bridge.opener(agents.index(add_to), self._say)

    def _read_rules(self) -> Callable[[], Rules] | None:
        """What gives the rules, if there are any."""
        from .. import rules

        if self._options.read_only and self._options.guard:
            raise Error("--read-only and --guard are two guards", 'put message = ["list", "sign"] into the rules')
        if self._options.read_only:
            return lambda: rules.READ_ONLY
        return rules.RulesFile(self._options.guard, self._say) if self._options.guard else None

    def opener(self, *, terminal: bool = True) -> Opener:
        """What opens the sessions with the agents, all that is asked for included."""
        opened = self._agents
        if self._rules:
            from ..guard import guarded
            from ..prompts import Person

            person = Person(serving.ways(self._log, terminal=terminal))
            self._stack.callback(person.close)
            opened = guarded(opened, self._rules, person, self._say)
        if self._log:
            from ..telling import told

            opened = told(opened, self._tell)
        return self._bridge.watched(opened)

    def begin(self) -> tuple[Sequence[Listener], Opener, Keyring | None]:
        """Listen."""
        open_session = self.opener()  # first, as there is nothing to take back if that fails
        return serving.listen(self._options.to), open_session, None

    def ready(self, listeners: Sequence[Listener]) -> None:
        """See that it does not lead to itself, now that others could reach it; then tell where it is."""
        options = self._options
        self._bridge.check()
        serving.announce(listeners, self._log, self._stack, options.openssh_config, as_json=options.json)

    def _tell(self, exchange: Exchange) -> None:
        assert self._log
        self._log.say(json.dumps(exchange.as_json()) if self._options.json else exchange.line())
