"""OpenSSH's programs as clients of our agent: ssh-add, ssh-keygen, ssh, and sshd in between."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("OpenSSH's programs at UNIX sockets", allow_module_level=True)

import pageantry
from pageantry import PublicKey
from pageantry.extensions import REPORT, HopState, Report

from .logins import Sshd, program, running_sshd, wait_for
from .ours import STARTS, Ours, ours, public

pytestmark = pytest.mark.interop

TYPES = {
    "ed25519": ("-t", "ed25519"),
    "rsa": ("-t", "rsa", "-b", "2048"),
    "ecdsa256": ("-t", "ecdsa", "-b", "256"),
    "ecdsa384": ("-t", "ecdsa", "-b", "384"),
    "ecdsa521": ("-t", "ecdsa", "-b", "521"),
    "dsa": ("-t", "dsa"),
}
PHRASE = "open sesame"


@pytest.fixture(scope="module", params=STARTS)
def agent(request: pytest.FixtureRequest) -> Iterator[Ours]:
    with ours(request.param) as made:
        yield made


@pytest.fixture(autouse=True)
def empty(agent: Ours) -> None:
    agent.answers()
    agent.run("ssh-add", "-q", "-D")


def new_key(agent: Ours, kind: str) -> Path:
    """A key file of that type, which is made once; some ssh-keygens know no DSA any more."""
    path = agent.home / kind
    if not path.exists():
        try:
            agent.key(kind, *TYPES[kind])
        except subprocess.CalledProcessError:
            pytest.skip(f"this ssh-keygen makes no {kind} keys")
    return path


# ssh-add


@pytest.mark.parametrize("kind", TYPES)
def test_ssh_add_adds_lists_tests_and_removes(agent: Ours, kind: str) -> None:
    key = new_key(agent, kind)
    agent.run("ssh-add", "-q", key)
    assert agent.lists() == [public(key)]
    for digest in ("sha256", "md5"):
        (line,) = agent.run("ssh-add", "-l", "-E", digest).splitlines()
        assert line == agent.run("ssh-keygen", "-l", "-E", digest, "-f", key).strip()
    agent.run("ssh-add", "-T", f"{key}.pub")
    agent.run("ssh-add", "-q", "-d", key)
    assert agent.lists() == []
    assert agent.call("ssh-add", "-T", f"{key}.pub").returncode != 0
    assert agent.call("ssh-add", "-d", key).returncode != 0


def test_ssh_add_removes_by_the_public_key_on_its_input(agent: Ours) -> None:
    keys = [new_key(agent, kind) for kind in ("ed25519", "ecdsa256")]
    agent.run("ssh-add", "-q", *keys)
    done = agent.call("ssh-add", "-d", "-", given=f"{public(keys[0])}\n")
    if done.returncode:
        pytest.skip("this ssh-add reads no public keys from its input")
    assert agent.lists() == [public(keys[1])]


def test_a_certificate_beside_a_key_comes_with_it(agent: Ours) -> None:
    authority = new_key(agent, "ecdsa256")
    key = agent.key("certified", "-t", "ed25519")
    agent.run("ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", "me", f"{key}.pub")
    agent.run("ssh-add", "-q", key)
    plain, certified = agent.lists()
    assert plain == public(key)
    assert certified == Path(f"{key}-cert.pub").read_text().strip()
    agent.run("ssh-add", "-T", f"{key}-cert.pub")
    agent.run("ssh-add", "-q", "-d", key)
    assert agent.lists() == []


def test_a_lifetime_ends_the_key(agent: Ours) -> None:
    short, long = new_key(agent, "ed25519"), new_key(agent, "rsa")
    agent.run("ssh-add", "-q", "-t", "2", short)
    agent.run("ssh-add", "-q", "-t", "1w", long)
    assert len(agent.lists()) == 2
    wait_for(lambda: agent.lists() == [public(long)], "the key is still there")
    agent.run("ssh-add", "-T", f"{long}.pub")


def test_an_encrypted_file_is_opened_by_ssh_add_and_not_by_the_agent(agent: Ours) -> None:
    key = agent.home / "encrypted"
    if not key.exists():
        agent.key("encrypted", "-t", "ed25519", "-a", "2", phrase=PHRASE)
    agent.answers(phrase=PHRASE)
    agent.run("ssh-add", "-q", key)
    assert len(agent.asked) == 1  # by ssh-add
    agent.run("ssh-add", "-T", f"{key}.pub")
    assert len(agent.asked) == 1


def test_consent_is_asked_for(agent: Ours) -> None:
    key = new_key(agent, "ed25519")
    agent.run("ssh-add", "-q", "-c", key)
    agent.run("ssh-add", "-T", f"{key}.pub")
    (question,) = agent.asked
    assert question.startswith("confirm|")
    assert "ed25519@test" in question
    agent.answers(yes=False)
    assert agent.call("ssh-add", "-T", f"{key}.pub").returncode != 0
    assert len(agent.asked) == 1
    assert agent.lists() == [public(key)]


def test_a_lock_hides_everything_until_the_right_passphrase_comes(agent: Ours) -> None:
    key = new_key(agent, "ed25519")
    agent.run("ssh-add", "-q", key)
    agent.answers(phrase="first lock")
    agent.run("ssh-add", "-x")
    assert agent.lists() == []
    assert agent.call("ssh-add", "-T", f"{key}.pub").returncode != 0
    assert agent.call("ssh-add", key).returncode != 0
    agent.answers(phrase="a guess")
    assert agent.call("ssh-add", "-X").returncode != 0
    assert agent.lists() == []
    agent.answers(phrase="first lock")
    agent.run("ssh-add", "-X")
    assert agent.lists() == [public(key)]
    agent.run("ssh-add", "-T", f"{key}.pub")


@pytest.mark.parametrize("words", [("-s", "/usr/lib/none.so"), ("-e", "/usr/lib/none.so")])
def test_tokens_are_refused(agent: Ours, words: tuple[str, str]) -> None:
    key = new_key(agent, "ed25519")
    agent.run("ssh-add", "-q", key)
    agent.answers(phrase="1234")
    done = agent.call("ssh-add", *words)
    assert done.returncode != 0
    assert "agent refused operation" in done.stderr
    assert agent.lists() == [public(key)]


def test_without_a_security_key_ssh_add_finds_none_to_load(agent: Ours) -> None:
    done = agent.call("ssh-add", "-K")
    assert done.returncode != 0
    assert agent.lists() == []


# ssh-keygen


def public_alone(agent: Ours, key: Path) -> Path:
    """A file with the public key, without the private one beside it, which programs would take instead of the agent."""
    path = agent.home / "hidden" / "key.pub"
    path.parent.mkdir(exist_ok=True)
    path.write_text(public(key))
    return path


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa384"])
def test_ssh_keygen_signs_files_with_a_key_in_the_agent(agent: Ours, kind: str) -> None:
    key = new_key(agent, kind)
    message = agent.home / f"message.{kind}"
    message.write_text("hello\n")
    hidden = public_alone(agent, key)
    Path(f"{message}.sig").unlink(missing_ok=True)
    refused = agent.call("ssh-keygen", "-Y", "sign", "-f", hidden, "-n", "file", message)
    assert refused.returncode != 0
    agent.run("ssh-add", "-q", key)
    agent.run("ssh-keygen", "-Y", "sign", "-f", hidden, "-n", "file", message)
    (agent.home / "allowed").write_text(f"me {public(key)}\n")
    verify = ("-Y", "verify", "-f", agent.home / "allowed", "-I", "me", "-n", "file", "-s", f"{message}.sig")
    agent.run("ssh-keygen", *verify, given="hello\n")
    assert agent.call("ssh-keygen", *verify, given="something else\n").returncode != 0


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa521"])
def test_an_authority_in_the_agent_signs_certificates(agent: Ours, kind: str) -> None:
    authority, key = new_key(agent, kind), new_key(agent, "ecdsa256")
    agent.run("ssh-add", "-q", authority)
    agent.run("ssh-keygen", "-q", "-U", "-s", f"{authority}.pub", "-I", "me", "-n", "me", f"{key}.pub")
    certificate = Path(f"{key}-cert.pub")
    shown = agent.run("ssh-keygen", "-L", "-f", certificate)
    certificate.unlink()
    assert agent.run("ssh-keygen", "-l", "-f", authority).split()[1] in shown


# ssh, and sshd in between


class Hosts:
    """The host gate.org, and inner.org, which is reached from there and from here."""

    def __init__(self, gate: Sshd, inner: Sshd) -> None:
        self.gate = gate
        self.inner = inner
        self.known = gate.home / "known"
        gate_key, inner_key = ((one.home / "host.pub").read_text() for one in (gate, inner))
        self.known.write_text(f"gate.org {gate_key}inner.org {inner_key}")
        for home in (gate.home, inner.home):
            with (home / ".ssh" / "known_hosts").open("a") as file:
                file.write(self.known.read_text())
            before = (home / "config").read_text()
            hosts = {"gate.org": gate, "inner.org": inner}
            (home / "config").write_text(
                "".join(
                    f"Host {name}\n HostName 127.0.0.1\n Port {one.port}\n User {one.user}\n HostKeyAlias {name}\n"
                    for name, one in hosts.items()
                )
                + before
            )

    def admit(self, *keys: Path) -> None:
        for home in (self.gate.home, self.inner.home):
            (home / "authorized").write_text("".join(f"{public(key)}\n" for key in keys))

    def ssh(self, agent: Ours, *words: str) -> subprocess.CompletedProcess[str]:
        environ = self.gate.environ(SSH_AUTH_SOCK=str(agent.address))
        return subprocess.run(["ssh", *words], env=environ, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as stack:
        yield Hosts(*(stack.enter_context(running_sshd()) for _ in range(2)))


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa256"])
def test_it_is_forwarded_over_two_hosts(agent: Ours, hosts: Hosts, kind: str) -> None:
    key = new_key(agent, kind)
    hosts.admit(key)
    agent.run("ssh-add", "-q", key)
    done = hosts.ssh(agent, "-A", "gate.org", "ssh -A inner.org ssh-add -L")
    assert (done.returncode, done.stdout.strip()) == (0, public(key)), done.stderr
    again = hosts.ssh(agent, "-A", "gate.org", "ssh -A inner.org ssh gate.org echo back")
    assert (again.returncode, again.stdout) == (0, "back\n"), again.stderr


def limited(agent: Ours, hosts: Hosts, *ways: str) -> Path:
    key = new_key(agent, "ed25519")
    hosts.admit(key)
    words = [word for way in ways for word in ("-h", way)]
    agent.run("ssh-add", "-q", "-H", hosts.known, *words, key)
    return key


def test_a_key_for_one_way_goes_that_way_and_no_other(agent: Ours, hosts: Hosts) -> None:
    key = limited(agent, hosts, "gate.org", "gate.org>inner.org")
    assert agent.lists() == [public(key)]
    assert hosts.ssh(agent, "gate.org", "echo in").stdout == "in\n"
    through = hosts.ssh(agent, "-A", "gate.org", "ssh inner.org echo in")
    assert (through.returncode, through.stdout) == (0, "in\n"), through.stderr
    assert hosts.ssh(agent, "inner.org", "echo in").returncode == 255  # from here
    back = hosts.ssh(agent, "-A", "gate.org", "ssh -A inner.org ssh gate.org echo in")
    assert (back.returncode, back.stdout) == (255, "")
    seen = [
        hosts.ssh(agent, "-A", "gate.org", command).stdout for command in ("ssh-add -L", "ssh -A inner.org ssh-add -L")
    ]
    assert seen[0].strip() == public(key)
    assert "ssh-ed25519" not in seen[1]


def test_a_key_for_the_first_host_alone_is_not_there_beyond_it(agent: Ours, hosts: Hosts) -> None:
    limited(agent, hosts, "gate.org")
    assert hosts.ssh(agent, "gate.org", "echo in").stdout == "in\n"
    assert "ssh-ed25519" not in hosts.ssh(agent, "-A", "gate.org", "ssh-add -L").stdout
    assert hosts.ssh(agent, "-A", "gate.org", "ssh inner.org echo in").returncode == 255


def test_a_key_for_another_user_does_not_log_in(agent: Ours, hosts: Hosts) -> None:
    limited(agent, hosts, "nobody@gate.org")
    assert hosts.ssh(agent, "gate.org", "echo in").returncode == 255
    limited(agent, hosts, f"{hosts.gate.user}@gate.org")
    assert hosts.ssh(agent, "gate.org", "echo in").stdout == "in\n"


def test_a_limited_key_is_not_freed_by_a_host_that_it_may_not_go_to_and_signs_no_files(
    agent: Ours, hosts: Hosts
) -> None:
    key = limited(agent, hosts, "gate.org")
    (hosts.gate.home / "srv" / "stolen").write_bytes(key.read_bytes())
    replaced = hosts.ssh(agent, "-A", "gate.org", "chmod 600 stolen && ssh-add stolen")
    assert replaced.returncode != 0
    assert "agent refused operation" in replaced.stderr
    assert hosts.ssh(agent, "inner.org", "echo in").returncode == 255
    message = agent.home / "limited"
    message.write_text("hello\n")
    signed = agent.call("ssh-keygen", "-Y", "sign", "-f", public_alone(agent, key), "-n", "file", message)
    assert signed.returncode != 0


def test_the_question_names_the_way_user_and_host(agent: Ours, hosts: Hosts) -> None:
    key = new_key(agent, "ed25519")
    hosts.admit(key)
    ways = ("-H", str(hosts.known), "-h", "gate.org", "-h", "gate.org>inner.org")
    agent.run("ssh-add", "-q", "-c", *ways, key)
    through = hosts.ssh(agent, "-A", "gate.org", "ssh inner.org echo in")
    assert through.stdout == "in\n", through.stderr
    first, second = agent.asked
    assert f'to log in as "{hosts.gate.user}" at gate.org' in first
    assert "asked for over" not in first
    assert f'to log in as "{hosts.inner.user}" at inner.org' in second
    assert "asked for over: this computer > gate.org" in second
    agent.answers(yes=False)
    assert hosts.ssh(agent, "gate.org", "echo in").returncode == 255


_STAY = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(os.environ["SSH_AUTH_SOCK"])
    print("open", flush=True)
    sys.stdin.read()
"""


def test_the_hops_of_a_connection_can_be_seen(agent: Ours, hosts: Hosts) -> None:
    key = new_key(agent, "ed25519")
    hosts.admit(key)
    agent.run("ssh-add", "-q", key)
    (hosts.inner.home / "srv" / "stay.py").write_text(_STAY)
    with subprocess.Popen(
        ["ssh", "-A", "gate.org", f"ssh -A inner.org {sys.executable} stay.py"],
        env=hosts.gate.environ(SSH_AUTH_SOCK=str(agent.address)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as ssh:
        assert ssh.stdout
        assert ssh.stdout.readline() == b"open\n"
        with pageantry.connect(str(agent.address)) as client:
            report = Report.decode(client.extension(REPORT))
        ssh.communicate(timeout=30)
    (far,) = [one for one in report.connections if one.hops]
    host_keys = [PublicKey.from_line((one.home / "host.pub").read_text()) for one in (hosts.gate, hosts.inner)]
    assert far.hops == tuple(HopState(key.blob, True) for key in host_keys)
    assert far.program == os.path.realpath(program("ssh"))


def test_it_is_named_in_a_configuration_file(agent: Ours, hosts: Hosts) -> None:
    key = new_key(agent, "ecdsa256")
    hosts.admit(key)
    agent.run("ssh-add", "-q", key)
    environ = hosts.gate.environ()
    command = [program("ssh"), "-F", str(hosts.gate.home / "config"), "-o", f"IdentityAgent={agent.address}"]
    for more in ([], ["-o", "IdentitiesOnly=yes", "-i", str(public_alone(agent, key))]):
        done = subprocess.run(
            [*command, *more, "gate.org", "echo in"], env=environ, capture_output=True, text=True, timeout=60
        )
        assert done.stdout == "in\n", done.stderr
