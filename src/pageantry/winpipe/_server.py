"""The server's end of a name: the logic, for any kernel with overlapped operations."""

from __future__ import annotations

import threading

from ._stream import Pipe, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, Protocol

    from ._peer import Peer
    from ._stream import Handle, Lane

    class Kernel(Protocol):
        """What a listener needs of the system."""

        def make(self, first: bool) -> Handle:
            """A new instance of the pipe; with `first`, FileExistsError if there is one already. Raises OSError."""

        def wait_any(self, lanes: Sequence[Lane], seconds: float | None) -> Lane | bool:
            """The first of `lanes` whose operation comes to its end; True when woken; False after so many seconds."""

        def wake(self, wake: bool) -> None:
            """Wake whoever is in `wait_any`, and have nobody sleep there until it is told False."""

        def peer(self, handle: Handle) -> Peer:
            """Who opened the other end."""

        def close(self) -> None:
            """Give everything back; the second time does nothing."""


#: How many clients can be connected before somebody accepts them. Further ones find the pipe busy, and wait.
BACKLOG: Final = 4


class Listener(Waiting):
    """A pipe's name, served: `accept` gives the `Pipe` of the next client.

    As long as this is open there are instances of the pipe, so nobody else can take the name in between.
    """

    def __init__(self, kernel: Kernel, path: str) -> None:
        super().__init__(path)
        self._kernel = kernel
        self._turn = threading.RLock()
        self._instances: list[Handle] = []  # each waiting for its client
        try:
            self._refill(BACKLOG)
        except BaseException:
            self.close()
            raise

    def accept(self) -> Pipe:
        """The next client, connected. Raises TimeoutError, BlockingIOError with a timeout of 0, OSError."""
        self._check()
        return self._in_turn(self._turn, self._accept)

    def close(self) -> None:
        """Give the name up, from any thread and any number of times; an `accept` is woken with OSError (EBADF).

        Clients that were accepted stay connected; those that were not are hung up on.
        """
        with self._gate:
            if not self.closed:
                self.closed = True
                self._kernel.wake(True)
            self._dispose()

    def _stop_accepting(self, stop: bool) -> None:
        """End the `accept` that is under way as if its deadline had passed; and further ones, until `stop` is False."""
        with self._gate:
            if not self.closed:
                self._kernel.wake(stop)

    def _accept(self, deadline: float | None) -> Pipe:
        while True:
            handle = self._connected(deadline)
            try:
                if not self._arrived(handle):
                    continue
                peer = self._kernel.peer(handle)
            except OSError:  # it is of no use any more
                peer = None
            try:
                self._refill(BACKLOG + 1)  # before that one is taken away, so that the name stays ours
            except OSError:
                if len(self._instances) == 1:
                    raise
            try:
                with self._gate:
                    self._check()
                    self._instances.remove(handle)
                if peer:
                    return Pipe(handle, self.path, peer)
                handle.close()
            except BaseException:
                if handle not in self._instances:
                    handle.close()
                raise

    def _connected(self, deadline: float | None) -> Handle:
        """An instance whose wait for a client has come to its end."""
        with self._gate:
            self._check()
            lanes = {handle.reading: handle for handle in self._instances}
        lane = self._wait(lambda seconds: self._kernel.wait_any([*lanes], seconds), deadline)
        self._check()
        if lane is None or isinstance(lane, bool):
            raise self._late()
        return lanes[lane]

    def _arrived(self, handle: Handle) -> bool:
        """Whether there is a client at the other end; if not, wait for one again."""
        if handle.reading.result() is not None:
            return True
        with self._gate:  # the thread that waited has ended, with which Windows ends what it waited for
            self._check()
            handle.reading.connect()
        return False

    def _refill(self, count: int) -> None:
        """Have `count` instances wait for clients."""
        while len(self._instances) < count:
            with self._gate:
                self._check()
                handle = self._kernel.make(first=not self._instances)
                try:
                    handle.reading.connect()
                except BaseException:
                    _hang_up(handle)
                    raise
                self._instances.append(handle)

    def _dispose(self) -> None:
        if self.closed and not self._busy:
            while self._instances:
                _hang_up(self._instances.pop())
            self._kernel.close()


def _hang_up(handle: Handle) -> None:
    """Give an instance back, and its client, if there is one."""
    try:
        if handle.reading.pending:
            handle.reading.cancel()
            handle.reading.result()
    except OSError:
        pass
    handle.close()
