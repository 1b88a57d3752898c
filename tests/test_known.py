"""Where agents are looked for on systems that need not be this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import pageantry
from pageantry import known, probing, wsl
from pageantry.endpoints import Endpoint, programs, winsock
from pageantry.errors import Unreachable
from pageantry.probing import Found, distinct


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's directory, and no programs."""
    monkeypatch.setenv("PATH", "")
    for name in (".ssh/agent", "Temp/ssh-XXXXab", "AppData/Local/gnupg", "AppData/Roaming/gnupg"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def on_windows(home: Path) -> list[tuple[str, str]]:
    """Address and agent of what is looked for there."""
    environ = {
        "TEMP": str(home / "Temp"),
        "LOCALAPPDATA": str(home / "AppData/Local"),
        "APPDATA": str(home / "AppData/Roaming"),
    }
    return [(one.endpoint.address, one.agent) for one in known.on_windows(environ, str(home))]


def test_windows_is_searched_in_the_order_of_preference(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config", "agent.sock", "omnisshagent-cygwin.sock", "agent/s.abc.agent.x"):
        (home / ".ssh" / name).touch()
    for name in ("agent.42", "other"):
        (home / "Temp" / "ssh-XXXXab" / name).touch()
    monkeypatch.setattr(winsock, "is_socket", lambda path: path.endswith((".sock", ".x")) and "omni" not in path)
    assert on_windows(home) == [
        ("openssh", "OpenSSH"),
        ("pageant-pipe", "Pageant"),
        ("pageant-window", "Pageant"),
        (f"assuan:{home / 'AppData' / 'Local' / 'gnupg' / 'S.gpg-agent.ssh'}", "gpg-agent"),
        (f"assuan:{home / 'AppData' / 'Roaming' / 'gnupg' / 'S.gpg-agent.ssh'}", "gpg-agent"),
        (f"cygwin:{home / 'Temp' / 'ssh-XXXXab' / 'agent.42'}", "OpenSSH"),
        (f"cygwin:{home / '.ssh' / 'omnisshagent-cygwin.sock'}", "OmniSSHAgent"),
        (f"winsock:{home / '.ssh' / 'agent' / 's.abc.agent.x'}", "OpenSSH"),
        (f"winsock:{home / '.ssh' / 'agent.sock'}", ""),
    ]


def test_gpgconf_knows_better_where_gnupg_s_socket_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def output(*arguments: str) -> str:
        asked.append(arguments)
        return str(home / "d.x" / "S.gpg-agent.ssh")

    monkeypatch.setattr(programs, "output", output)
    assert [one for one in on_windows(home) if one[1] == "gpg-agent"] == [
        (f"assuan:{home / 'd.x' / 'S.gpg-agent.ssh'}", "gpg-agent")
    ]
    assert asked == [("gpgconf", "--list-dirs", "agent-ssh-socket")]


def test_names_with_what_stands_for_others_are_searched_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    home = tmp_path / "[me]"
    (home / "Temp" / "ssh-x").mkdir(parents=True)
    (home / "Temp" / "ssh-x" / "agent.1").touch()
    assert (f"cygwin:{home / 'Temp' / 'ssh-x' / 'agent.1'}", "OpenSSH") in on_windows(home)


def test_nothing_but_a_home_is_needed(home: Path) -> None:
    assert len(list(known.on_windows({}, str(home)))) == 4


def test_whose_a_named_place_is_shows_in_its_path() -> None:
    for where, agent in (
        ("/home/me/.gnupg/S.gpg-agent.ssh", "gpg-agent"),
        ("/home/me/.ssh/agent/s.abc", "OpenSSH"),
        ("/tmp/ssh-x/agent.1", "OpenSSH"),
        ("/elsewhere", ""),
    ):
        native = where.replace("/", os.sep)
        assert known._guess(Endpoint("unix", native), f"{os.sep}home{os.sep}me") == agent
    assert known._guess(Endpoint("pageant-window"), "") == "Pageant"


def test_what_names_a_place_names_no_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = f"stdio:{sys.executable} -c \"open(r'{tmp_path / 'started'}', 'w')\""
    monkeypatch.setenv("SSH_AUTH_SOCK", command)
    for probe in range(4):
        found = next(one for one in pageantry.locate(probe=probe) if one.source == "SSH_AUTH_SOCK")
        assert (found.reached, found.endpoint.kind) == (None, "unix")
        assert found.error
    assert not (tmp_path / "started").exists()


def test_what_was_named_is_tried_before_anything_else_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", os.path.abspath("gone"))
    monkeypatch.setattr(known, "_usual", lambda environ, home: 1 / 0)
    places = known.candidates()
    assert next(place for place in places if place.source == "SSH_AUTH_SOCK").endpoint.kind == "unix"
    with pytest.raises(ZeroDivisionError):
        next(places)


def found(agent: str, pid: int | None, identities: list[object] | None, address: str = "pageant-window") -> Found:
    result = Found(known.Candidate(Endpoint(address), agent))
    result.pid, result.identities = pid, identities  # type: ignore[assignment] # any list that can be compared
    return result


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (found("Pageant", 42, ["key"]), found("Pageant", 42, ["key"]), True),
        (found("Pageant", 42, []), found("Pageant", 42, []), True),
        (found("Pageant", 42, None), found("Pageant", 42, None), True),
        (found("Pageant", 42, ["key"]), found("Pageant", 43, ["key"]), False),
        (found("Pageant", None, None), found("Pageant", None, None), False),
        (found("Pageant", 42, ["key"]), found("gpg-agent", 42, ["key"]), True),
        (found("Pageant", 42, []), found("gpg-agent", 42, []), False),
        (found("OpenSSH", 42, []), found("OpenSSH", 42, []), False),  # systemd, of two
    ],
)
def test_one_process_is_one_agent_where_it_must_be(one: Found, other: Found, same: bool) -> None:
    one.also = []
    assert len(distinct([one, other])) == 2 - same
    assert one.also == (["pageant-window"] if same else [])


class Process:
    """A process of Windows', as a connection has it for a peer."""

    pid, account = 42, "PC\\me"

    def __init__(self, program: str) -> None:
        self.program = program


@pytest.mark.parametrize(
    ("program", "stand_in"),
    [
        ("C:\\PuTTY\\pageant.exe", ""),
        ("C:\\PuTTY\\PAGEANT.EXE", ""),
        ("C:\\pageant64.exe", ""),
        ("C:\\KeePass\\KeePass.exe", "KeePass"),
        ("C:\\GnuPG\\bin\\gpg-agent.exe", "gpg-agent"),
        ("", ""),
    ],
)
def test_who_stands_in_for_pageant_is_called_by_its_name_and_asked_on_request_alone(
    program: str, stand_in: str
) -> None:
    assert probing._stand_in(found("Pageant", 42, None), Process(program)) == stand_in
    assert probing._stand_in(found("gpg-agent", 42, None, "assuan"), Process(program)) == ""
    assert probing._stand_in(found("Pageant", 42, None), None) == ""


@pytest.mark.skipif(sys.platform != "linux", reason="WSL is Linux")
class TestWSL:
    @pytest.fixture(autouse=True)
    def in_wsl(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("SSH_AUTH_SOCK", "SSH_TPM_AUTH_SOCK", "BITWARDEN_SSH_AUTH_SOCK", "PREFIX"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(home))
        monkeypatch.setenv("WSL_DISTRO_NAME", "Debian")
        monkeypatch.setattr(known, "_glob", lambda base, pattern, agent: iter(()))
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="5.15.90.1-microsoft-standard-WSL2"))

    def test_windows_agents_are_explained_where_nothing_leads_to_them(self) -> None:
        (found,) = pageantry.locate()
        assert (found.address, found.agent, found.reached) == ("openssh", "OpenSSH on Windows", None)
        assert found.error
        assert found.hint.startswith("from WSL 2 use 'stdio:pageantry.exe relay openssh'")
        with pytest.raises(Unreachable):
            pageantry.connect(say=lambda text: pytest.fail(text))

    def test_a_container_has_no_windows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WSL_DISTRO_NAME")
        assert pageantry.locate() == []

    def test_a_relay_on_path_leads_to_them_and_is_started_on_request_alone(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(home))
        relay = home / "pageantry.exe"
        relay.write_text(f'#!/bin/sh\necho "$*" >> {home}/started\nexec {sys.executable} -c "{_AGENT}"\n')
        relay.chmod(0o755)
        for probe in (0, 1, None):
            shown = pageantry.locate(probe=probe)
            assert [(one.address, one.agent, one.reached) for one in shown] == [
                ("stdio:pageantry.exe relay openssh", "OpenSSH on Windows", "present"),
                ("stdio:pageantry.exe relay pageant", "Pageant on Windows", "present"),
            ]
        assert not (home / "started").exists()
        assert [one.reached for one in pageantry.locate(probe=3)] == ["answers", "answers"]
        with pageantry.connect() as agent:
            assert agent.address == "stdio:pageantry.exe relay openssh"
            assert agent.identities() == []
        assert sorted((home / "started").read_text().split("\n")[:2]) == ["relay openssh", "relay pageant"]

    def test_what_is_on_windows_alone_is_explained(self) -> None:
        for address, there in (("pageant", "pageant"), ("openssh", "openssh"), ("//./pipe/x", "pipe:x")):
            with pytest.raises(Unreachable) as caught:
                pageantry.connect(address)
            assert caught.value.hint.startswith(f"from WSL 2 use 'stdio:pageantry.exe relay {there}'")

    def test_wsl_1_is_told_apart(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(release="4.4.0-19041-Microsoft"))
        assert wsl.version() == 1
        (found,) = pageantry.locate()
        assert found.hint.startswith("from WSL 1 use ")


_AGENT = "import os; [os.write(1, b'\\0\\0\\0\\5\\14\\0\\0\\0\\0') for _ in iter(lambda: os.read(0, 99), b'')]"
