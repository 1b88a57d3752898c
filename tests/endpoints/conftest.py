from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Script = Callable[[socket.socket], object]


class Port:
    """A port of 127.0.0.1. Each client is served by the next of some scripts, and the last one serves all others.

    `number` is the port's, `clients` how many came.
    """

    def __init__(self, *scripts: Script) -> None:
        self.clients = 0
        self._scripts = scripts
        self._last: object = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            connection, client = self._listener.accept()
            if client == self._last:
                connection.close()
                return
            connection.settimeout(30)
            script = self._scripts[min(self.clients, len(self._scripts) - 1)]
            self.clients += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connection, script)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket, script: Script) -> None:
        with connection, contextlib.suppress(OSError):
            script(connection)

    def close(self) -> None:
        """End when all clients that came have left. The second time does nothing."""
        if self._last is None:
            with socket.socket() as last:
                last.bind(("127.0.0.1", 0))
                self._last = last.getsockname()
                last.connect(("127.0.0.1", self.number))
                for thread in self._threads:
                    thread.join(10)
                    assert not thread.is_alive()
            self._listener.close()


@pytest.fixture
def port() -> Iterator[Callable[..., Port]]:
    """Serves a port by scripts."""
    with contextlib.ExitStack() as stack:
        yield lambda *scripts: stack.enter_context(contextlib.closing(Port(*scripts)))


@pytest.fixture
def private_directory(tmp_path: Path) -> Path:
    """One that nobody else may write in, whatever the umask."""
    made = tmp_path / "private"
    made.mkdir(0o700)
    return made
