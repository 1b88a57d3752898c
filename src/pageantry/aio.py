"""Agents for asyncio: `connect`, `locate` and a client as in `pageantry`, all of it to be awaited.

    async with pageantry.aio.connect() as agent:
        for identity in await agent.identities():
            print(identity)

Nothing here holds up the loop. It moves the bytes of sockets itself; pipes and whatever else it does not know have a
thread, and so have connecting, with its looks at files, owners and processes, and the mathematics of signatures.
"""

from __future__ import annotations

import asyncio
import warnings
from functools import partial
from threading import Thread

from . import client, discovery, requests, streams
from .agent import SignFlags
from .errors import Disconnected, Error, Refused, Unsupported
from .keys import signatures
from .winpipe._worker import Worker, in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Iterable
    from types import TracebackType
    from typing import Any, Self, TypeVar

    from . import agent as blocking
    from .agent import Identity
    from .constraints import Constraint
    from .keys.private import PrivateKey
    from .keys.public import PublicKey
    from .probing import Found
    from .requests import Request

    _T = TypeVar("_T")


def connect(
    address: str | None = None,
    *,
    holding: PublicKey | None = None,
    timeout: float | None = None,
    say: Callable[[str], object] | None = None,
) -> Connecting:
    """See `pageantry.connect`. Await it, or use it in an `async with`. `say` is called at the end of the search."""
    return Connecting(partial(discovery.connect, address, holding=holding, timeout=timeout), say)


async def locate(address: str | None = None, *, probe: int | None = None) -> list[Found]:
    """See `pageantry.locate`."""
    return await in_thread("pageantry", partial(discovery.locate, address, probe=probe))


class Connecting:
    """What `connect` returns: to be awaited for an `Agent`, or used in an `async with`, which closes that."""

    def __init__(self, search: Callable[..., blocking.Agent], say: Callable[[str], object] | None) -> None:
        self._search = search
        self._say = say

    def __await__(self) -> Generator[Any, None, Agent]:
        return self._open().__await__()

    def __aenter__(self) -> Coroutine[Any, None, Agent]:
        return self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._agent.close()

    async def _open(self) -> Agent:
        say = self._say or partial(warnings.warn, stacklevel=2)  # of whoever awaits this
        said: list[str] = []
        found = await in_thread("pageantry", lambda: self._find(said.append), _discard)
        try:
            for message in said:
                say(message)
            if isinstance(found, Error):
                raise found
            self._agent = await Client.over(found) if isinstance(found, client.Client) else Agent(found)
        except BaseException:
            Thread(target=_discard, args=(found,), daemon=True).start()
            raise
        return self._agent

    def _find(self, say: Callable[[str], object]) -> blocking.Agent | Error:
        try:
            return self._search(say=say)
        except Error as error:
            return error


def _discard(found: blocking.Agent | Error) -> None:
    if not isinstance(found, Error):
        found.close()


class Agent:
    """Any agent, for the tasks of one loop: its methods, to be awaited, each done in a thread when it is its turn.

    A call that is cancelled once it has begun is done all the same.
    """

    def __init__(self, agent: blocking.Agent) -> None:
        self.address = agent.address
        self.unreadable = 0
        self._agent = agent
        self._worker = Worker("pageantry")
        self._closed = False

    async def _do(self, call: Callable[[], _T]) -> _T:
        requests.check_reopening(self.address, closed=self._closed, bound=False)
        return await self._worker.start(call)

    async def identities(self) -> list[Identity]:
        """See `pageantry.Agent.identities`."""
        identities = await self._do(self._agent.identities)
        self.unreadable = self._agent.unreadable
        return identities

    async def sign(
        self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False
    ) -> bytes:
        """See `pageantry.Agent.sign`."""
        return await self._do(lambda: self._agent.sign(key, data, flags, verify=verify))

    async def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        """See `pageantry.Agent.add`."""
        await self._do(lambda: self._agent.add(key, comment, constraints))

    async def remove(self, key: PublicKey) -> None:
        """See `pageantry.Agent.remove`."""
        await self._do(lambda: self._agent.remove(key))

    async def remove_all(self) -> None:
        """See `pageantry.Agent.remove_all`."""
        await self._do(self._agent.remove_all)

    async def lock(self, passphrase: bytes) -> None:
        """See `pageantry.Agent.lock`."""
        await self._do(lambda: self._agent.lock(passphrase))

    async def unlock(self, passphrase: bytes) -> None:
        """See `pageantry.Agent.unlock`."""
        await self._do(lambda: self._agent.unlock(passphrase))

    async def extension(self, name: str, data: bytes = b"") -> bytes:
        """See `pageantry.Agent.extension`."""
        return await self._do(lambda: self._agent.extension(name, data))

    async def query(self) -> list[str]:
        """See `pageantry.Agent.query`."""
        return await self._do(self._agent.query)

    async def close(self) -> None:
        """See `pageantry.Agent.close`."""
        self._closed = True
        self._worker.end()
        await asyncio.shield(in_thread("pageantry", self._agent.close))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Client(Agent):
    """An agent whose connections the loop itself can use.

    See `pageantry.Client`; `connect` is called in a thread, when it is needed. Tasks may share a client; their requests
    take turns. A request that is cancelled takes the connection with it, and the next one opens another.
    """

    def __init__(self, connect: Callable[[], client.Connection], address: str, timeout: float | None = None) -> None:
        self.address = address
        self._timeout = requests.checked(timeout)
        self._connect = connect
        self._stream: streams.Stream | None = None
        self._bound = self._closed = False
        self._turn = asyncio.Lock()
        self._waiting = 0  # tasks whose turn it is not yet
        self._listing = requests.Listing()
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def over(cls, agent: client.Client) -> Self:
        """The same agent, whose connection this takes away."""
        result = cls(agent._connect, agent.address, agent._timeout)
        result._bound = agent._bound
        connection, agent._connection = agent._connection, None
        if connection:
            result._stream = await streams.over(connection, agent.address)
        return result

    async def request(self, payload: bytes, timeout: float | None = None) -> bytes:
        """See `pageantry.Client.request`."""
        return await self._ask(requests.Bare(payload), timeout)

    async def _ask(self, request: Request[_T], timeout: float | None = None) -> _T:
        timeout = timeout or self._timeout or request.timeout
        deadline = self._loop.time() + timeout
        if self._waiting or self._turn.locked():
            await self._wait_for_turn(deadline, timeout)
        else:
            await self._turn.acquire()
        try:
            stream = self._stream
            if stream is None or stream.lost:
                stream = await self._reconnect(deadline, timeout)
            try:
                reply, in_step = await stream.exchange(request.frame, deadline, timeout)
            except BaseException:  # among them that this was cancelled: its reply would be taken for the next one's
                self._drop()
                raise
            if not in_step:
                self._drop()
        finally:
            self._turn.release()
        return request.meaning(reply, self.address)

    async def _wait_for_turn(self, deadline: float, timeout: float) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._turn.acquire()
        except TimeoutError:
            raise requests.busy(self.address, timeout) from None
        finally:
            self._waiting -= 1

    async def _reconnect(self, deadline: float, timeout: float) -> streams.Stream:
        requests.check_reopening(self.address, closed=self._closed, bound=self._bound)
        try:
            async with asyncio.timeout_at(deadline):
                connection = await in_thread("pageantry", self._connect, lambda late: late.close())
                stream = await streams.over(connection, self.address)
        except TimeoutError:
            raise requests.late(self.address, timeout) from None
        if self._closed:  # meanwhile
            stream.close()
            requests.check_reopening(self.address, closed=True, bound=False)
        self._stream = stream
        return stream

    def _drop(self) -> asyncio.Future[None] | None:
        stream, self._stream = self._stream, None
        return stream.close() if stream else None

    async def close(self) -> None:
        """Close the connection for good; a request that another task has under way ends with `Disconnected`."""
        self._closed = True
        if closed := self._drop():
            await asyncio.shield(closed)

    async def identities(self) -> list[Identity]:
        """See `pageantry.Client.identities`."""
        identities = await self._ask(self._listing)
        self.unreadable = self._listing.unreadable
        return identities

    async def sign(
        self, key: PublicKey, data: bytes, flags: SignFlags = SignFlags.NONE, *, verify: bool = False
    ) -> bytes:
        """See `pageantry.Client.sign`."""
        signature = await self._ask(requests.Signing(key, data, flags))
        if verify:  # which takes milliseconds for a key that somebody chose for that, and some to load `cryptography`
            await in_thread("pageantry", partial(signatures.verify, key, signature, data))
        return signature

    async def add(self, key: PrivateKey, comment: str = "", constraints: Iterable[Constraint] = ()) -> None:
        """See `pageantry.Client.add`."""
        await self._ask(requests.add(key, comment, constraints))

    async def remove(self, key: PublicKey) -> None:
        """See `pageantry.Client.remove`."""
        await self._ask(requests.remove(key))

    async def remove_all(self) -> None:
        """See `pageantry.Client.remove_all`."""
        await self._ask(requests.remove_all())

    async def lock(self, passphrase: bytes) -> None:
        """See `pageantry.Client.lock`."""
        await self._ask(requests.lock(passphrase))

    async def unlock(self, passphrase: bytes) -> None:
        """See `pageantry.Client.unlock`."""
        await self._ask(requests.unlock(passphrase))

    async def extension(self, name: str, data: bytes = b"") -> bytes:
        """See `pageantry.Client.extension`."""
        request = requests.Extending(name, data)
        try:
            if request.binds:
                return await self._ask(request)
            await self._rest()
            async with Client(self._connect, self.address, self._timeout) as other:
                return await other._ask(request)
        except Disconnected:
            raise request.hung_up(self.address) from None
        finally:
            self._bound |= request.binds and request.done

    async def _rest(self) -> None:
        """Close the connection until the next request, if none is under way and no session is bound to it."""
        if not (self._bound or self._waiting or self._turn.locked()) and (closed := self._drop()):
            await asyncio.shield(closed)

    async def query(self) -> list[str]:
        """See `pageantry.Client.query`."""
        try:
            contents = await self.extension("query")
        except (Unsupported, Refused):
            return []
        return requests.extension_names(contents, self.address)
