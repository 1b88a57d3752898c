"""`pageantry export vault`: the settings in vault(1)'s own stores, as JSON."""

from __future__ import annotations

import os

import click

from .._version import __version__
from ..errors import SettingsError
from ..vault.foreign import FORMATS
from .common import say

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@click.group
def export() -> None:
    """Print the settings that other programs keep.

    \b
    Examples:
      VAULT_KEY=... pageantry export vault ~/.vault
    """


@export.command("vault", short_help="Print the settings in vault(1)'s own store.")
@click.argument("path", type=click.Path())
@click.option(
    "-f",
    "--format",
    "formats",
    multiple=True,
    metavar="FORMAT",
    type=click.Choice(FORMATS),
    help=f"Try this format; may be given several times. Default: {', '.join(FORMATS)}.",
)
@click.option(
    "-k",
    "--key",
    metavar="KEY",
    help="The store's password. Others on this machine can see it; "
    "better set VAULT_KEY. Default: VAULT_KEY, LOGNAME, USER or USERNAME.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more on standard error.")
@click.option("--debug", is_flag=True, help="The same.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@click.version_option(__version__, message="pageantry %(version)s")
def export_vault(path: str, formats: tuple[str, ...], key: str | None, quiet: bool, **options: Any) -> None:
    """Print the settings in vault(1)'s own store at PATH, a file or a folder, as JSON.

    Where PATH is the word VAULT_PATH, the environment variable of that name says where it is, or ~/.vault.

    \b
    Examples:
      VAULT_KEY=... pageantry export vault ~/.vault
      pageantry vault --import ~/.vault      the same, straight into our settings
    """
    from ..vault.foreign import load
    from ..vault.settings import encoded, with_compat

    if path == "VAULT_PATH":
        home = os.path.expanduser("~")
        path = os.path.join(home, os.environ.get("VAULT_PATH") or ".vault")
    if options["verbose"] or options["debug"]:
        say(f"reading {path} as {', '.join(formats or FORMATS)}")
    config, notes = load(path, store_password(key), formats or FORMATS)
    for note in [] if quiet else notes:
        say(note)
    click.echo(encoded(with_compat(config)) + b"\n", nl=False)


def store_password(key: str | None = None) -> bytes:
    """The password of vault(1)'s store: `key`, or what vault(1) itself would take from the environment."""
    for name in ("VAULT_KEY", "LOGNAME", "USER", "USERNAME"):
        key = key or os.environ.get(name)
    if not key:
        raise SettingsError("the store's password is not known", "set VAULT_KEY to the password that vault(1) had")
    return os.fsencode(key)
