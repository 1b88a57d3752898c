"""`pageantry vault`: the passphrase for a service, and the settings that shape it."""

from __future__ import annotations

import click

from .._version import __version__
from ..vault.derive import COMPATS, SETTINGS, derive
from ..vault.settings import NAMES, effective, shape
from ..vault.store import Store
from .common import print_json, say
from .phrases import PROVIDERS, master_phrase
from .vault_call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeAlias

    from click.shell_completion import CompletionItem

    _Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

#: What ends an invocation; without any of these it derives a passphrase.
_ACTIONS: Final = ("delete", "delete_globals", "clear", "import", "export", "config")
_SHAPING: Final = ("phrase", "key", "with_key", *SETTINGS)
_GROUPS: Final = {
    "Passphrase generation": (*_SHAPING, "compat", "agent", "json"),
    "Configuration": ("config", "notes", "unset", "delete", "delete_globals", "clear"),
    "Storage management": ("export", "export_as", "import", "overwrite"),
    "Manner": ("modern", "notes_before", "provider", "verbose", "debug", "quiet"),
}


class _Grouped(click.Command):
    """A command whose help shows its options in groups, and which starts quickly."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Spell out the flags in front: for a short one, click 8.5 spends 2 ms guessing which long one was misspelt.

        Only those in front, as a later word that looks like a flag may be the value of an option.
        """
        flags = {
            param.opts[0]: param.opts[-1] for param in self.params if isinstance(param, click.Option) and param.is_flag
        }
        count = next((number for number, word in enumerate(args) if word not in flags), len(args))
        return super().parse_args(ctx, [flags[word] for word in args[:count]] + args[count:])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = {param.name: param for param in self.get_params(ctx) if isinstance(param, click.Option)}
        groups = {title: [names.pop(name) for name in group] for title, group in _GROUPS.items()}
        for title, params in (groups | {"Other options": list(names.values())}).items():
            with formatter.section(title):
                formatter.write_dl([record for param in params if (record := param.get_help_record(ctx))])


def _flag(short: str, name: str, text: str) -> _Decorator:
    return click.option(*filter(None, (short, f"--{name}")), name.replace("-", "_"), is_flag=True, help=text)


def _number(short: str, name: str, text: str, least: int = 0) -> _Decorator:
    def check(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
        if value is not None and value < least:
            raise click.BadParameter(f"{value} is below {least}", ctx, param)
        return value

    options = filter(None, (short, f"--{name}"))
    return click.option(*options, name, type=int, callback=check, metavar="NUMBER", help=text)


def _not_empty(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value == "":  # an unset variable of a script's, which must not mean "any"
        raise click.BadParameter("it is empty", ctx, param)
    return value


def complete_service(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of services with settings, for the shell. Without a word about what may be wrong with these."""
    from click.shell_completion import CompletionItem

    from ..errors import Error

    try:
        services = Store().load()["services"]
    except Error:
        return []
    return [CompletionItem(name) for name in sorted(services) if name.startswith(incomplete) and name.isprintable()]


def _checked_service(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("it is not UTF-8; use a name that is", ctx, param) from None
    return value


@click.command("vault", cls=_Grouped, short_help="Derive a passphrase from a phrase or an SSH key.")
@click.argument("service", required=False, shell_complete=complete_service, callback=_checked_service)
@_flag("-p", "phrase", "Ask for a master phrase, or read it from a pipe.")
@_flag("-k", "key", "Take an SSH key of an agent in place of a phrase; with several, ask which.")
@click.option(
    "--with-key",
    metavar="KEY",
    callback=_not_empty,
    help="Take this one: a fingerprint, comment, number of -k, .pub file or base64.",
)
@_number("-l", "length", "How many characters (default 20).", 1)
@_number("-r", "repeat", "How often a character may stand in a row; 0 for as often as it likes.")
@_number("", "lower", "At least so many lower-case letters; 0 for none at all, here and below.")
@_number("", "upper", "At least so many upper-case letters.")
@_number("", "number", "At least so many digits.")
@_number("", "space", "At least so many blanks.")
@_number("", "dash", "At least so many of - and _.")
@_number("", "symbol", "At least so many symbols, dashes among them.")
@click.option(
    "--compat",
    type=click.Choice(COMPATS),
    help="Whose meaning --repeat has: vault(1)'s, the default, or derivepassphrase's, which from 2 on is one less.",
)
@click.option(
    "--agent",
    metavar="ADDRESS",
    callback=_not_empty,
    help="The agent to use: unix:PATH or a socket's path; openssh, pageant or pipe:NAME on Windows; stdio:COMMAND; "
    "keys:PATH (key files). Default: all of them, until one has the key.",
)
@click.option("--json", is_flag=True, help="Print JSON.")
@_flag("-c", "config", "Save the given settings for SERVICE, or without one for all.")
@_flag("-n", "notes", "With --config and SERVICE, edit the notes for it.")
@click.option(
    "--unset",
    multiple=True,
    metavar="NAME",
    type=click.Choice(NAMES),
    help=f"With --config, forget a setting ({', '.join(NAMES)}). May be given several times.",
)
@_flag("-x", "delete", "Delete the settings for SERVICE.")
@_flag("", "delete-globals", "Delete the settings for all services.")
@_flag("-X", "clear", "Delete all settings.")
@click.option("-e", "--export", metavar="PATH", help="Write all settings to a file, or to standard output with -.")
@click.option("--export-as", type=click.Choice(["json", "sh"]), help="As JSON (default) or as a shell script.")
@click.option(
    "-i",
    "--import",
    metavar="PATH",
    help="Read settings from a file, from standard input with -, "
    "or from vault(1)'s own file or folder, whose password is in VAULT_KEY.",
)
@click.option(
    "--overwrite-existing/--merge-existing",
    "overwrite",
    default=None,
    help="With --import or --config, replace the existing settings, or merge (default).",
)
@click.option(
    "--modern-editor-interface/--vault-legacy-editor-interface",
    "modern",
    default=None,
    help="Edit notes below an explanation, where emptying the file gives up, or bare (default).",
)
@click.option(
    "--print-notes-before/--print-notes-after",
    "notes_before",
    default=False,
    help="Print the notes for SERVICE before or after (default) its passphrase.",
)
@click.option(
    "--ssh-agent-socket-provider",
    "provider",
    metavar="NAME",
    type=click.Choice(list(PROVIDERS)),
    help="derivepassphrase's way to name an agent.",
)
@_flag("-v", "verbose", "Say more on standard error.")
@_flag("", "debug", "The same.")
@_flag("-q", "quiet", "Say nothing but errors.")
@click.version_option(__version__, message="pageantry %(version)s")
def vault(**options: Any) -> None:
    """Derive the passphrase for SERVICE from a master phrase or an SSH key.

    Nothing needs to be stored: the same phrase or key and the same settings always give the same passphrase. Once they
    are lost, so is the passphrase. Settings and notes are saved unencrypted; a phrase had better not be.

    \b
    Examples:
      pageantry vault example.org            with the key in your agent
      pageantry vault -p -l 30 example.org   with a master phrase
      pageantry vault -c --symbol 0 bank     save a setting for one service
      pageantry vault -c -k                  save which key to use
    """
    call = Call(options)
    _check_usage(call)
    action = next((name for name in _ACTIONS if call.given(name)), None)
    if action != "import":
        _point_at_derivepassphrase(call)
    if action is None:
        _derive(call)
        return
    from . import vault_storage

    getattr(vault_storage, f"run_{action}")(call)


def _derive(call: Call) -> None:
    """Print the passphrase, and the service's notes beside it."""
    settings = effective(call.store.load(), call.service, call.chosen)
    phrase = master_phrase(call, settings)
    passphrase = derive(phrase, call.service, **shape(settings))
    notes: str = settings.get("notes", "").strip()
    if call.options["json"]:
        print_json({"service": call.service, "passphrase": passphrase, "notes": notes})
        return
    before = call.options["notes_before"]
    if notes and before:
        _print_notes([*notes.splitlines(), ""])
    click.echo(passphrase)
    if notes and not before:
        _print_notes(["", *notes.splitlines(), ""])


def _print_notes(lines: list[str]) -> None:
    for line in lines:
        say(line)


def _check_usage(call: Call) -> None:
    """Refuse options that contradict each other, and say which have no effect."""
    ctx = click.get_current_context()
    flags = {str(param.name): param.opts[-1] for param in ctx.command.params}
    if problem := _contradiction(call, flags):
        ctx.fail(problem)
    if call.options["service"] == "":
        call.say("an empty SERVICE means no service, as for vault(1)")
    for name, needed in {
        "notes": ["config"],
        "unset": ["config"],
        "overwrite": ["config", "import"],
        "export_as": ["export"],
        "modern": ["notes"],
    }.items():
        if call.options[name] not in (None, False, ()) and not any(map(call.given, needed)):
            call.say(f"{flags[name]} does nothing without {' or '.join(flags[other] for other in needed)}")


def _contradiction(call: Call, flags: dict[str, str]) -> str:
    """What is wrong with the options taken together, in one line, or nothing."""
    actions = [name for name in _ACTIONS if call.given(name)]
    if call.given("phrase") and (key := next(filter(call.given, ("key", "with_key")), "")):
        return f"--phrase and {flags[key]} exclude each other"
    if call.given("agent") and call.given("provider"):
        return "--agent and --ssh-agent-socket-provider exclude each other"
    if len(actions) > 1:
        return f"{flags[actions[0]]} and {flags[actions[1]]} exclude each other"
    action = actions[0] if actions else ""
    if action and action != "config" and (extra := [name for name in (*_SHAPING, "notes") if call.given(name)]):
        return f"{flags[action]} and {flags[extra[0]]} exclude each other"
    if action in ("delete_globals", "clear", "import", "export"):
        return f"{flags[action]} takes no SERVICE" if call.options["service"] is not None else ""
    if action == "config":
        return "--notes needs a SERVICE" if call.given("notes") and not call.service else ""
    return "" if call.service else f"{flags.get(action, 'deriving a passphrase')} needs a SERVICE"


def _point_at_derivepassphrase(call: Call) -> None:
    """Say how to bring derivepassphrase's settings over, as long as there are none of ours."""
    import os
    import sys

    if call.store.exists:
        return
    default = "%APPDATA%\\derivepassphrase" if sys.platform == "win32" else "~/.derivepassphrase"
    folder = os.environ.get("DERIVEPASSPHRASE_PATH") or os.path.expandvars(os.path.expanduser(default))
    path = os.path.join(folder, "vault.json")
    if os.path.isfile(path):
        call.say(
            f"derivepassphrase's settings are not used here yet; to have them: pageantry vault --import {_quoted(path)}"
        )


def _quoted(path: str) -> str:
    """`path` as a shell takes it: on Windows both of them."""
    import sys

    if sys.platform == "win32":
        return f'"{path}"'
    else:  # noqa: RET505 - mypy wants to see which platform this is for
        from shlex import quote

        return quote(path)
