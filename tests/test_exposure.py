"""Agents offered on private sockets and pipes: to good programs, to hostile ones, and to many at once."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import pageantry
from pageantry import Client, PublicKey, SignFlags, server
from pageantry.endpoints import parse
from pageantry.errors import Disconnected, Refused, Unreachable, Unsupported
from pageantry.exposure import Exposure
from pageantry.keyfiles import KeyFiles
from pageantry.messages import MAX_MESSAGE, Extension, IdentitiesAnswer, RequestIdentities, SessionBind, decode, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pageantry.client import Connection

KEY = Path(__file__).parent / "interop" / "keys" / "ed25519"
ED25519 = PublicKey(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(range(32)))
LIST = frame(RequestIdentities().payload())
ONE = frame(IdentitiesAnswer(((ED25519.blob, b"me"),)).payload())

#: What an agent makes of one request, without its length: the bytes that it sends, or None to hang up.
Script = Callable[[bytes], bytes | None]


@contextlib.contextmanager
def connected(address: str) -> Iterator[Connection]:
    connection = parse(address).connect(10)
    connection.settimeout(20)
    try:
        yield connection
    finally:
        connection.close()


def received(connection: Connection, size: int) -> bytes:
    """So many bytes, or all up to the end."""
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def hung_up(connection: Connection) -> bool:
    """Whether the other end closes it."""
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Upstream:
    """An agent that `client` leads to, and notes which connection brought which request."""

    def __init__(self, script: Script) -> None:
        self.heard: list[list[bytes]] = []
        self.open = 0
        self._script = script
        self._gate = threading.Lock()

    def client(self, timeout: float | None = 20) -> Client:
        return Client(self._connect, "unix:/fake", timeout)

    def _connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        heard: list[bytes] = []
        with self._gate:
            self.heard.append(heard)
            self.open += 1
        threading.Thread(target=self._serve, args=(theirs, heard)).start()
        return ours

    def _serve(self, connection: socket.socket, heard: list[bytes]) -> None:
        with connection, contextlib.suppress(OSError):
            frames = server.Frames(connection)
            while request := frames.next(60):
                heard.append(request)
                reply = self._script(request[4:])
                if reply is None:
                    break
                connection.sendall(reply)
        with self._gate:
            self.open -= 1


@pytest.fixture
def said() -> list[str]:
    return []


@contextlib.contextmanager
def passing(script: Script, said: list[str], timeout: float | None = 20) -> Iterator[tuple[str, Upstream]]:
    """An address that leads to an agent with this script, and that agent."""
    upstream = Upstream(script)
    with upstream.client(timeout) as client, pageantry.exposed(client, say=said.append) as address:
        upstream.heard.clear()
        yield address, upstream
    wait_for(lambda: upstream.open == 0, "connections are left")


@pytest.fixture
def offered() -> Iterator[str]:
    """A key file, at an address."""
    with pageantry.exposed(KeyFiles([str(KEY)])) as address:
        yield address


def test_key_files_list_and_sign_for_others(offered: str) -> None:
    files = KeyFiles([str(KEY)])
    with pageantry.connect(offered) as agent:
        assert agent.identities() == files.identities()
        key = agent.identities()[0].key
        assert agent.sign(key, b"data", verify=True) == files.sign(key, b"data")
        with pytest.raises(Refused):
            agent.sign(ED25519, b"data")
        with pytest.raises(Refused):
            agent.remove_all()
        with pytest.raises(Unsupported):
            agent.extension("anything@example.org")
        assert agent.query() == []
        assert len(agent.identities()) == 1


def test_the_front_door_stays_a_function_when_its_module_is_imported() -> None:
    import pageantry.exposure

    assert pageantry.exposed is pageantry.exposure.exposed


def test_each_connection_has_its_own_to_the_agent_from_its_first_request_on(said: list[str]) -> None:
    with passing(lambda _: ONE, said) as (address, upstream):
        assert upstream.open == 0, (
            "the client's own connection would be in the way of an agent that serves one at a time"
        )
        with connected(address) as one, connected(address) as other:
            for connection, times in ((one, 2), (other, 1), (one, 1)):
                for _ in range(times):
                    connection.sendall(LIST)
                    assert received(connection, len(ONE)) == ONE
            with connected(address):
                assert [len(heard) for heard in upstream.heard] == [3, 1]
        wait_for(lambda: upstream.open == 0, "the agent's connections outlive their clients'")
    assert said == []


def test_a_session_is_bound_where_its_signatures_are_asked_for(said: list[str]) -> None:
    def script(request: bytes) -> bytes:
        return b"\0\0\0\1\6" if isinstance(decode(request), Extension) else ONE

    with passing(script, said) as (address, upstream), pageantry.connect(address) as agent:
        agent.extension(SessionBind.name, b"contents")
        agent.identities()
        with pageantry.connect(address) as other:
            other.identities()
    assert [len(heard) for heard in upstream.heard] == [2, 1]


@pytest.mark.parametrize("kind", [0, 1, 5, 99, 200, 255])
@pytest.mark.parametrize("contents", [b"", b"\0", b"\xff" * 1000])
def test_messages_that_nobody_knows_pass_as_they_are(said: list[str], kind: int, contents: bytes) -> None:
    request = frame(bytes((kind,)) + contents)
    with passing(lambda heard: frame(heard[::-1]), said) as (address, upstream), connected(address) as connection:
        connection.sendall(request)
        assert received(connection, len(request)) == frame(request[4:][::-1])
        assert upstream.heard == [[request]]


def test_one_reply_too_many_comes_to_the_next_request_as_it_would_without_us(said: list[str]) -> None:
    with passing(lambda _: ONE + b"\0\0\0\1\6", said) as (address, _), connected(address) as connection:
        for reply in (ONE, b"\0\0\0\1\6", ONE):
            connection.sendall(LIST)
            assert received(connection, len(reply)) == reply


def test_the_largest_messages_pass(said: list[str]) -> None:
    largest = frame(bytes(range(256)) * (MAX_MESSAGE // 256))
    with passing(lambda request: frame(request[::-1]), said) as (address, _), connected(address) as connection:
        for _ in range(3):
            connection.sendall(largest)
            assert received(connection, len(largest)) == frame(largest[4:][::-1])


def test_single_bytes_are_put_together(offered: str) -> None:
    with connected(offered) as connection:
        for _ in range(2):
            for byte in LIST:
                connection.sendall(bytes((byte,)))
            assert received(connection, 5)[4] == IdentitiesAnswer.number
            connection.recv(10_000)


def test_a_thousand_requests_at_once_are_answered_in_order(said: list[str]) -> None:
    with passing(lambda request: frame(request), said) as (address, _), connected(address) as connection:
        sent = b"".join(frame(b"\xc8%d" % number) for number in range(1000))
        thread = threading.Thread(target=connection.sendall, args=(sent,))
        thread.start()
        assert received(connection, len(sent)) == sent
        thread.join()


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 2**31, 2**32 - 1])
def test_a_length_that_cannot_be_is_hung_up_on(said: list[str], size: int) -> None:
    with passing(lambda _: ONE, said) as (address, upstream), connected(address) as connection:
        connection.sendall(size.to_bytes(4, "big") + b"\x0b")
        assert hung_up(connection)
        assert upstream.heard == []
        with connected(address) as other:
            other.sendall(LIST)
            assert received(other, len(ONE)) == ONE
    assert said == [f"a client was hung up on: message of {size} bytes announced; it can be 1 to {MAX_MESSAGE}"]


@pytest.mark.parametrize("begun", [b"\0", b"\0\0", b"\0\0\0\x05", b"\0\0\0\x05\x0b"])
def test_half_a_message_and_silence_is_hung_up_on_and_holds_nobody_up(
    offered: str, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FRAME_TIMEOUT", 1)
    with connected(offered) as silent, connected(offered) as other:
        silent.sendall(begun)
        other.sendall(LIST)
        assert received(other, 5)[4] == IdentitiesAnswer.number
        assert hung_up(silent)


def test_a_client_that_does_not_read_is_hung_up_on(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRAME_TIMEOUT", 1)
    with passing(lambda _: frame(bytes(MAX_MESSAGE)), said) as (address, upstream), connected(address) as connection:
        connection.sendall(LIST * 100)
        wait_for(lambda: upstream.heard, "it was never served")
        wait_for(lambda: upstream.open == 0, "it is still served")
        assert hung_up_after_all(connection)


def hung_up_after_all(connection: Connection) -> bool:
    """Whether the other end has closed it, behind whatever it sent before."""
    while True:
        try:
            if not connection.recv(1_000_000):
                return True
        except TimeoutError:
            return False
        except OSError:
            return True


def test_a_connection_that_nobody_uses_is_closed_in_the_end(offered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.3)
    with connected(offered) as connection:
        connection.sendall(LIST)
        assert received(connection, 5)[4] == IdentitiesAnswer.number
        wait_for(lambda: hung_up_after_all(connection), "it is still open")


def test_an_agent_that_hangs_up_ends_the_connection_for_good(said: list[str]) -> None:
    with passing(lambda _: None, said) as (address, upstream):
        with connected(address) as connection:
            connection.sendall(LIST + LIST)
            assert hung_up(connection)
        with pageantry.connect(address) as agent:
            with pytest.raises(Unsupported):  # as it would be without us
                agent.extension("anything@example.org")
            with pytest.raises(Disconnected):
                agent.identities()
        assert {len(heard) for heard in upstream.heard} == {1}
    assert set(said) == {"a client was hung up on: agent unix:/fake hung up without a reply"}


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (b"\0\0\0\0", "sent nonsense: message of 0 bytes"),
        (b"HTTP/1.1 400", "sent nonsense: message of 1213486160 bytes"),
        (b"\0\0", "did not answer within 0.5 s"),
        (b"", "did not answer within 0.5 s"),
    ],
)
def test_an_agent_that_talks_nonsense_or_nothing_is_said(
    said: list[str], reply: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "FRAME_TIMEOUT", 0.5)
    with passing(lambda _: reply, said, 0.5) as (address, _), connected(address) as connection:
        connection.sendall(LIST)
        assert hung_up(connection)
    (line,) = said
    assert words in line
    assert "\n" not in line


def test_an_agent_that_is_not_there_any_more_is_said(said: list[str]) -> None:
    upstream = Upstream(lambda _: ONE)
    client = upstream.client()

    def gone() -> socket.socket:
        raise Unreachable("there is no /fake", "start it")

    client._connect = gone
    with pageantry.exposed(client, say=said.append) as address, connected(address) as connection:
        connection.sendall(LIST)
        assert hung_up(connection)
    assert said == ["a client was hung up on: there is no /fake"]


def test_fifty_clients_at_once_get_each_its_own_replies(said: list[str]) -> None:
    wrong: list[int] = []

    def converse(address: str, number: int) -> None:
        with connected(address) as connection:
            for turn in range(20):
                request = frame(b"\xc8%d %d" % (number, turn) * (number + 1))
                connection.sendall(request)
                if received(connection, len(request)) != request:
                    wrong.append(number)

    with passing(frame, said) as (address, upstream):
        threads = [threading.Thread(target=converse, args=(address, number)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert sorted(len(heard) for heard in upstream.heard) == [20] * 50
    assert said == []


def test_fifty_clients_at_once_share_an_agent_of_this_process(offered: str) -> None:
    good: list[bool] = []

    def sign() -> None:
        with pageantry.connect(offered) as agent:
            good.append(bool(agent.sign(agent.identities()[0].key, b"data", SignFlags.NONE, verify=True)))

    threads = [threading.Thread(target=sign) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert good == [True] * 50


def test_more_clients_than_there_may_be_are_turned_away_until_others_leave(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)

    def served(address: str) -> bool:
        with connected(address) as connection, contextlib.suppress(OSError):
            connection.sendall(LIST)
            return received(connection, len(ONE)) == ONE
        return False

    with passing(lambda _: ONE, said) as (address, _):
        with connected(address) as one, connected(address) as other:
            for connection in (one, other):
                connection.sendall(LIST)
                assert received(connection, len(ONE)) == ONE
            assert not served(address)
        assert said == ["a client was turned away: 2 are connected"]
        wait_for(lambda: served(address), "nobody is served any more")


def test_it_goes_on_when_the_system_had_nothing_to_give_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    exposure = Exposure(KeyFiles([str(KEY)]))
    accept = exposure._listener.accept
    failures = iter([errno.EMFILE, errno.ENOBUFS, errno.ECONNABORTED])

    def failing() -> Connection:
        for code in failures:
            raise OSError(code, "out of something")
        return accept()

    monkeypatch.setattr(exposure._listener, "accept", failing)
    with exposure as address, pageantry.connect(address) as agent:
        assert agent.identities()


def test_the_end_hangs_up_on_everybody_and_waits_for_nothing(said: list[str]) -> None:
    asked = threading.Event()

    def script(_: bytes) -> bytes:
        asked.set()
        return b""

    with contextlib.ExitStack() as stack:
        with passing(script, said) as (address, _):
            idle = stack.enter_context(connected(address))
            waiting = stack.enter_context(connected(address))
            waiting.sendall(LIST)
            assert asked.wait(20)
            start = time.monotonic()
        assert time.monotonic() - start < server.GRACE
        assert hung_up(idle)
        assert hung_up(waiting)
    assert said == []
    with pytest.raises(Unreachable):
        parse(address).connect(0.5)


def test_an_error_within_ends_it_too() -> None:
    with pytest.raises(ZeroDivisionError), pageantry.exposed(KeyFiles([str(KEY)])) as address:
        raise ZeroDivisionError
    with pytest.raises(Unreachable):
        parse(address).connect(0.5)


def test_it_may_be_closed_twice_or_before_it_began() -> None:
    exposure = pageantry.exposed(KeyFiles([str(KEY)]))
    with exposure:
        pass
    exposure.close()
    pageantry.exposed(KeyFiles([str(KEY)])).close()


def test_one_exposed_may_be_exposed_again(offered: str) -> None:
    with pageantry.connect(offered) as one, pageantry.exposed(one) as address, pageantry.connect(address) as other:
        assert other.identities() == one.identities()


def test_nothing_is_left_of_it(leaves_nothing: Callable[..., None]) -> None:
    def use() -> None:
        with passing(lambda _: ONE, []) as (address, _), contextlib.ExitStack() as stack:
            for _ in range(5):
                stack.enter_context(connected(address)).sendall(LIST)
            stack.enter_context(connected(address))
            with pageantry.connect(address) as agent:
                agent.identities()
        pageantry.exposed(KeyFiles([str(KEY)])).close()

    before = set(os.listdir(tempfile.gettempdir()))
    leaves_nothing(use)
    left = set(os.listdir(tempfile.gettempdir())) - before
    assert not [name for name in left if name.startswith("pageantry-")]


if sys.platform != "win32":
    NOBODY = 65534

    @pytest.fixture
    def place() -> Iterator[Path]:
        made = Path(tempfile.mkdtemp(prefix="pgt", dir="/tmp"))
        yield made
        shutil.rmtree(made)

    def shown(monkeypatch: pytest.MonkeyPatch, **places: Path | str) -> Path:
        """Where an agent is offered with these variables, which is gone afterwards."""
        for name in ("XDG_RUNTIME_DIR", "TMPDIR"):
            monkeypatch.setenv(name, str(places.get(name, "")))
        with pageantry.exposed(KeyFiles([str(KEY)])) as address:
            path = Path(address)
            assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) == (0o600, 0o700)
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert len(address) <= 103
            with pageantry.connect(address) as agent:
                assert agent.identities()
        assert not path.parent.exists()
        return path.parent.parent

    def test_the_socket_is_ours_alone_in_a_directory_of_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = os.umask(0)
        try:
            assert shown(monkeypatch, XDG_RUNTIME_DIR=place) == place
        finally:
            os.umask(old)
        assert shown(monkeypatch, TMPDIR=place) == place
        assert shown(monkeypatch) == Path("/tmp")

    def test_a_place_that_will_not_do_is_passed_over(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        deep = place / ("x" * 80)
        deep.mkdir(0o700)
        assert shown(monkeypatch, XDG_RUNTIME_DIR=deep, TMPDIR=place) == place, "too deep for a socket"
        assert shown(monkeypatch, XDG_RUNTIME_DIR=place / "missing", TMPDIR=place) == place
        assert shown(monkeypatch, XDG_RUNTIME_DIR="relative", TMPDIR=place) == place
        place.chmod(0o777)
        assert shown(monkeypatch, XDG_RUNTIME_DIR=place) == Path("/tmp"), "everybody may put something else there"
        assert [path.name for path in place.iterdir()] == ["x" * 80]

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
    def test_another_user_gets_in_by_no_way(monkeypatch: pytest.MonkeyPatch) -> None:
        with pageantry.exposed(KeyFiles([str(KEY)])) as address, socket.socket(socket.AF_UNIX) as connection:
            os.seteuid(NOBODY)
            try:
                with pytest.raises(PermissionError):
                    connection.connect(address)
            finally:
                os.seteuid(0)
            Path(address).parent.chmod(0o755)
            Path(address).chmod(0o666)
            os.seteuid(NOBODY)
            try:
                connection.settimeout(20)
                connection.connect(address)
            finally:
                os.seteuid(0)
            assert hung_up(connection)
            with pageantry.connect(address) as agent:
                assert agent.identities()
