"""The verbs on Windows: what the logic of client and server is there given for a kernel."""

from __future__ import annotations

import sys

from . import _kernel, _security
from ._client import opened
from ._peer import Peer, Untrusted
from ._server import Listener
from ._stream import Pipe

assert sys.platform == "win32", "Windows only: callers ask first"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

exists = _kernel.exists
user = _security.user


def connect(path: str, timeout: float, trust: Iterable[str]) -> Pipe:
    """See `winpipe.connect`."""
    trusted = {user(), *trust}
    handle = opened(path, timeout, _kernel.open_client, _kernel.wait_free)
    try:
        peer = Peer(handle.server_pid(), _security.owner(handle.handle))
        if peer.sid not in trusted:
            raise Untrusted(path, peer)
    except BaseException:
        handle.close()
        raise
    return Pipe(handle, path, peer)


def listen(path: str, access: Iterable[str]) -> Listener:
    """See `winpipe.listen`."""
    return Listener(_Kernel(path, access), path)


def listening(path: str) -> bool:
    """See `winpipe.listening`."""
    return _kernel.wait_free(path, 0)


class _Kernel(_kernel.Waker):
    """What a `Listener` needs of Windows, for one pipe."""

    def __init__(self, path: str, access: Iterable[str]) -> None:
        self._path = path
        self._descriptor = _security.Descriptor(access, _kernel.CLIENT_ACCESS)
        super().__init__()

    def make(self, first: bool) -> _kernel.Handle:
        return _kernel.make_instance(self._path, self._descriptor.address, first)

    def peer(self, handle: Any) -> Peer:
        pid = handle.client_pid()
        return Peer(pid, _security.client(handle.handle, pid))

    def close(self) -> None:
        super().close()
        self._descriptor.close()
