"""What docs/serving.md and README.md show of the agent, done as it is written there."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("sockets and terminals of UNIX", allow_module_level=True)

import pageantry
from pageantry.constraints import Confirm, Lifetime, RestrictDestination
from pageantry.messages import SessionBind

from ..hosts import binding, ed25519_key, hop, userauth
from . import terminals
from .serving import PASSPHRASE, PROGRAM, Environ, lists, openssh, putty, serving
from .test_serve_log import ME, asking, place_of

DOCS = Path(__file__).parents[2] / "docs"
KEY = ed25519_key(1)
GATE, INNER, HOST = (ed25519_key(seed) for seed in (50, 51, 52))
LIMITS = RestrictDestination(
    (
        (hop(""), hop("gate.example", GATE.public)),
        (hop("gate.example", GATE.public), hop("inner.example", INNER.public, user="bob")),
    )
)


def blocks(kind: str, page: Path = DOCS / "serving.md") -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", page.read_text("utf-8"), re.DOTALL)


def general(text: str, home: Path) -> list[str]:
    """The words of a text, without what differs from one run to the next."""
    text = " ".join(text.split()).replace(f"{home}/run", "/run/user/1000").replace(ME, "ssh (process 0)")
    text = re.sub(r"\d\d:\d\d:\d\d|process \d+", "N", text)
    return re.sub(r"SHA256:[^ )]+", "F", text).split()


@pytest.fixture
def shell(environ: Environ, home: Path) -> Environ:
    """The environment of a shell that finds the command."""
    (home / "bin").mkdir()
    command = " ".join(PROGRAM)
    (home / "bin" / "pageantry").write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    (home / "bin" / "pageantry").chmod(0o755)
    (home / ".ssh").mkdir(mode=0o700)
    return environ | {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def run(environ: Environ, script: str, cwd: Path) -> str:
    done = subprocess.run(["sh", "-ec", script], env=environ, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def private_file(path: Path, comment: str) -> None:
    openssh(path, 1)
    path.chmod(0o600)
    subprocess.run(["ssh-keygen", "-q", "-c", "-C", comment, "-f", str(path)], check=True, capture_output=True)


def test_there_is_what_is_looked_at_here() -> None:
    assert [len(blocks(kind)) for kind in ("console", "sh", "ini", "text")] == [3, 3, 2, 1]


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="ssh-keygen is not installed")
def test_it_says_at_its_start_and_of_a_login_what_is_shown(shell: Environ, home: Path) -> None:
    private_file(home / ".ssh" / "id_ed25519", "me@home")
    (home / ".ssh" / "known_hosts").write_text(f"example.org {HOST.public.line()}\n")
    started, logged, _ = blocks("console")
    command = started.splitlines()[0].removeprefix("$ ")
    with contextlib.closing(terminals.AtTerminal(shell, "/bin/sh", "-c", f"exec {command}", columns=115)) as terminal:
        terminal.shows("until Ctrl-C\n")
        assert general(f"$ {command}\n{terminal.shown}", home) == general(started, home)
        with pageantry.connect(place_of(terminal)) as client:
            client.extension(SessionBind.name, binding(HOST, b"session", False))
            client.sign(KEY.public, userauth(KEY.public, b"session", "bob"))
            client.add(ed25519_key(2), "work", [Confirm()])
        with asking(place_of(terminal), ed25519_key(2).public):
            terminal.shows("[y/N] ")
            terminal.type("n\n")
            terminal.shows("said no\n")
        lines = terminal.shown[terminal.shown.index("signed with") - 9 :]
    signed, refused = lines[: lines.index("added work") - 9], lines[lines.index("refused") - 9 :]
    assert general(signed + refused, home) == general(logged, home)
    readme = next(block for block in blocks("console", DOCS.parent / "README.md") if "pageantry serve" in block)
    assert general(started + signed, home) == general(readme, home)


def test_it_asks_and_tells_of_limits_as_is_shown(environ: Environ, home: Path) -> None:
    with terminals.at_terminal(environ) as terminal:
        place = place_of(terminal)
        with pageantry.connect(place) as there, pageantry.connect(place) as here:
            here.add(KEY, "me@home", [Lifetime(8 * 3600 - 1), Confirm(), LIMITS])
            there.extension(SessionBind.name, binding(GATE, b"first", True))
            there.extension(SessionBind.name, binding(INNER, b"second", False))
            known = f"gate.example {GATE.public.line()}\ninner.example {INNER.public.line()}\n"
            (home / ".ssh").mkdir()
            (home / ".ssh" / "known_hosts").write_text(known)
            command = blocks("console")[2].splitlines()[0]
            told = run(environ | {"SSH_AUTH_SOCK": place}, command.replace("$ pageantry", " ".join(PROGRAM)), home)
            assert general(f"{command}\n{told}", home) == general(blocks("console")[2], home)
            data = userauth(KEY.public, b"second", "bob", INNER.public)
            answers = threading.Thread(target=there.sign, args=(KEY.public, data))
            answers.start()
            terminal.shows("[y/N] ")
            terminal.type("y\n")
            answers.join(30)
        question = terminal.shown[terminal.shown.index("Allow") : terminal.shown.index("[y/N]") + 5]
    assert general(question, home) == general(blocks("text")[0], home)


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("ssh-add"), reason="ssh-add is not installed")
def test_what_is_to_be_put_in_the_profile_gives_a_shell_its_agent(shell: Environ, home: Path) -> None:
    script = (
        blocks("sh")[0] + 'ssh-add -l || [ $? = 1 ]\neval "$(pageantry ssh-agent -k)"\necho "${SSH_AUTH_SOCK:-none}"'
    )
    said = run(shell, script, home).splitlines()
    assert said[0] == "The agent has no identities."
    assert said[1].startswith("Agent pid ")
    assert said[2] == "none"
    assert run(shell | {"SSH_AUTH_SOCK": "/there"}, blocks("sh")[0] + 'echo "$SSH_AUTH_SOCK"', home) == "/there\n"


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_finds_no_fault_with_the_units(shell: Environ, home: Path) -> None:
    (home / ".local").symlink_to(home)
    units = [home / f"pageantry.{kind}" for kind in ("socket", "service")]
    for unit, text in zip(units, blocks("ini"), strict=True):
        unit.write_text(text)
    verify = ["systemd-analyze", "--user", "verify", *map(str, units)]
    done = subprocess.run(verify, env=shell, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_profile_names_the_socket_that_systemd_makes(shell: Environ, home: Path) -> None:
    enable, remember = blocks("sh")[1].splitlines()
    assert enable.split()[-1] == "pageantry.socket"
    run(shell, remember, home)
    named = run(shell, '. ~/.profile; echo "$SSH_AUTH_SOCK"', home).strip()
    listens = next(line for line in blocks("ini")[0].splitlines() if line.startswith("ListenStream="))
    assert named == listens.partition("=")[2].replace("%t", str(home / "run"))


def test_files_are_held_encrypted_by_what_is_written(shell: Environ, home: Path) -> None:
    openssh(home / ".ssh" / "id_ed25519", 1, PASSPHRASE)
    putty(home / "work.ppk", 2, PASSPHRASE, "work")
    with serving(shell) as agent:
        run(shell | {"SSH_AUTH_SOCK": agent.place}, blocks("sh")[2], home)
        assert lists(agent.place) == [str(home / ".ssh" / "id_ed25519"), "work"]
