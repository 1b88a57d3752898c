"""The protocol from the agent's side: connections come in, and each has a session that answers its requests.

server = Server([listener], sessions.to(agent))     # threads of its own take it from here
server.close()
"""

from __future__ import annotations

import socket
import sys
import threading
from _thread import start_new_thread
from time import monotonic, sleep

from .errors import Error
from .framing import Frames, Idle
from .messages import Failure, frame
from .sessions import Served

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final, Protocol

    from .client import Connection
    from .endpoints.listening import Listener
    from .sessions import Opener, Session

    class _Lane(Protocol):
        """See `lane.Lane`."""

        def take(self, served: Served, connection: socket.socket, /) -> None: ...
        def close(self, patience: float, /) -> None: ...


#: Seconds that a client may leave its connection unused. Clients that forget theirs must not take all there can be.
IDLE_TIMEOUT: Final = 3600.0
#: Connections at the same time; each takes up to two descriptors and, while it is busy or where there is no `lane`, a
#: thread. For a further one, the process that has most of them loses the one that it has left unused for longest; or
#: its first, if it keeps all busy.
MAX_CONNECTIONS: Final = 2048
#: Seconds that closing waits for answers that are under way.
GRACE: Final = 5.0

#: Seconds that a thread waits for the next request of a connection that it has served.
_STAY: Final = 5.0
#: Seconds until a listener is tried again that could not accept, for want of descriptors as a rule.
_PAUSE: Final = 0.1
#: Seconds after which it is said again that clients are hung up on for others.
_QUIET: Final = 60.0

_FAILURE: Final = frame(Failure().payload())


def converse(
    frames: Frames, session: Session, say: Callable[[str], object] | None = None, patience: float | None = None
) -> None:
    """Have `session` answer the requests that come in `frames`, one after the other, to their end.

    Raises `WireError` when the client talks nonsense, `Error` when `session` has no reply, OSError when the client is
    too slow or has gone, `Idle` when it has not asked for anything in `patience` seconds (None: `IDLE_TIMEOUT`).
    Where `session` fails as no program should, the reply is FAILURE, if there is a `say` to tell.
    """
    while request := frames.next(patience or IDLE_TIMEOUT):
        try:
            reply = session.answer(request)
        except Error:
            raise
        except Exception as error:
            if say is None:
                raise
            say(f"a request failed, which is a fault of this program: {_fault(error)}")
            reply = _FAILURE
        frames.send(reply)


def _fault(error: Exception) -> str:
    """What was raised, and where; without its own words, in which there may be a secret."""
    where = ""
    trace = error.__traceback__
    while trace:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if module.startswith(f"{__package__}."):
            where = f" at {module}:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}{where}"


if sys.platform == "linux":
    from .lane import Lane

    def _lane(work: Callable[[Served], object], end: Callable[[Served], object]) -> _Lane | None:
        return Lane(work, end, IDLE_TIMEOUT)

else:

    def _lane(work: Callable[[Served], object], end: Callable[[Served], object]) -> _Lane | None:
        """None: each connection has a thread."""
        return None


def _start(serve: Callable[[Served], None], served: Served) -> None:
    """Serve a connection in a thread of its own. Raises RuntimeError, MemoryError."""
    if sys.platform == "win32":  # where pipes ask which thread they are in, which makes Python remember unknown ones
        threading.Thread(target=serve, args=(served,), name="pageantry", daemon=True).start()
    else:  # threading.Thread would wait until the thread runs, which is for ever if it has no memory to
        start_new_thread(serve, (served,))


class Server:
    """Serves the connections that come in at `listeners`, each with a session that `open_session` gives.

    `say` is told, in a line each, why a client was hung up on that would rather have had a reply.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        open_session: Opener,
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._listeners = listeners
        self._open_session = open_session
        self._say = say or (lambda _: None)
        self._gate = threading.Lock()
        self._served: dict[Served, None] = {}
        self._closed = False
        self._quiet_until = 0.0
        self._lane = _lane(self._work, self._end)
        self._accepting = [
            threading.Thread(target=self._accept, args=(listener,), name="pageantry server", daemon=True)
            for listener in listeners
        ]
        for thread in self._accepting:
            thread.start()

    def close(self) -> None:
        """Take no more connections, hang up on those there are, and wait for their ends, `GRACE` seconds at most."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
        deadline = monotonic() + GRACE
        for thread in self._accepting:
            thread.join(max(0.0, deadline - monotonic()))
        with self._gate:
            served = list(self._served)
            for one in served:
                one.hang_up()
                one.session.shutdown()
        for one in served:
            one.ended.wait(max(0.0, deadline - monotonic()))
        if self._lane:
            self._lane.close(max(1.0, deadline - monotonic()))

    def _accept(self, listener: Listener) -> None:
        while not listener.closed:
            try:
                self._begin(listener.accept())
            except Exception:  # noqa: BLE001 - for want of descriptors, threads or memory: others are not to end it
                if not listener.closed:
                    self._make_room()
                    sleep(_PAUSE)

    def _begin(self, connection: Connection) -> None:
        """Serve a connection. Raises RuntimeError when the system gives no more threads, OSError and the like."""
        if len(self._served) >= MAX_CONNECTIONS:
            self._make_room()
        try:
            served = Served(connection, self._open_session(connection))
        except BaseException:
            connection.close()
            raise
        if offer := getattr(connection, "offer", None):  # one that can answer at once by itself
            offer(served.at_once)
        with self._gate:
            self._served[served] = None
        try:
            self._wait_for(served)
        except BaseException:
            self._end(served)
            raise

    def _wait_for(self, served: Served) -> None:
        """Have a connection be served as soon as it asks for something. Raises as `_begin` does."""
        connection = served.frames.connection
        if self._lane and isinstance(connection, socket.socket):
            self._lane.take(served, connection)
        else:
            _start(self._serve, served)

    def _may_rest(self, served: Served) -> bool:
        """Whether it can wait without a thread."""
        return self._lane is not None and isinstance(served.frames.connection, socket.socket)

    def _rest(self, served: Served) -> None:
        """The same for one that has been served already, and ends if that cannot be."""
        served.has_thread = False
        try:
            self._wait_for(served)
        except Exception:  # noqa: BLE001 - the lane has closed, say
            self._end(served)

    def _work(self, served: Served) -> None:
        """Serve a connection that has asked for more than the lane gives."""
        try:
            _start(self._serve, served)
        except Exception:  # noqa: BLE001 - for want of threads or memory: others are served
            self._end(served)
            self._tell("a client was hung up on: the system gives no thread for it")
            self._make_room(of_threads=True)

    def _make_room(self, *, of_threads: bool = False) -> None:
        """Hang up on a client of the process that has most: the one that is idle for longest, or else the oldest.

        Where the room is `of_threads`, only those that have one count.
        """
        with self._gate:
            clients = [one for one in self._served if one.has_thread or not of_threads]
            most: dict[int | None, int] = {}
            for one in clients:
                most[one.pid] = most.get(one.pid, 0) + 1
            never = float("inf")
            order = [(-most[one.pid], one.frames.idle_since or never) for one in clients]
            if not order:
                return
            victim = clients[order.index(min(order))]
            del self._served[victim]
            victim.hang_up()
        if monotonic() > self._quiet_until:  # a flood of clients is to be no flood of lines
            self._quiet_until = monotonic() + _QUIET
            self._tell("there is no room for all clients: one was hung up on for another")

    def _end(self, served: Served) -> None:
        """Let go of a connection and its session."""
        with self._gate:  # so that nobody shuts down what is closed
            self._served.pop(served, None)
        for let_go in (served.frames.connection.close, served.session.close):
            try:
                let_go()
            except Exception as error:  # noqa: BLE001 - it is no matter of others, who may be served by this thread
                self._tell(f"the end of a client failed, which is a fault of this program: {_fault(error)}")
        served.ended.set()

    def _tell(self, line: str) -> None:
        try:
            self._say(line)
        except (OSError, ValueError):
            pass  # nobody reads it any more, or it has been closed, which is no reason to serve nobody any more

    def _serve(self, served: Served) -> None:
        then = self._end
        served.has_thread = True
        try:
            if served.owed:
                served.frames.send(served.owed)
                served.owed = b""
            converse(served.frames, served.session, self._tell, _STAY if self._may_rest(served) else None)
        except Idle:
            if self._may_rest(served):
                then = self._rest
        except Error as error:
            if not self._closed:
                self._tell(f"a client was hung up on: {error}")
        except OSError:
            pass  # it is too slow, or has gone
        finally:
            then(served)
