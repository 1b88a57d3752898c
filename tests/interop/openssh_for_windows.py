"""A stand-in for OpenSSH for Windows' agent on a named pipe, with the quirks of the real one.

    python openssh_for_windows.py PIPE KEYFILE...

It hangs up on a request whose first piece is not its length and more, on types it does not know, on lock and unlock,
and on every extension but session-bind, whose SUCCESS it frames twice. It refuses constraints. "ready" on standard
output says that it listens.
"""

from __future__ import annotations

import sys
import threading

from pageantry import winpipe
from pageantry.agent import SignFlags
from pageantry.errors import Error
from pageantry.keyfiles import KeyFiles
from pageantry.keys import signatures
from pageantry.messages import (
    AddIdentity,
    AddIdentityConstrained,
    Extension,
    IdentitiesAnswer,
    Message,
    RemoveAllIdentities,
    RemoveIdentity,
    RequestIdentities,
    SessionBind,
    SignRequest,
    SignResponse,
    decode,
    frame,
)

FAILURE, SUCCESS = b"\x05", b"\x06"


class Keys:
    """The keys of some files, and those that were added."""

    def __init__(self, paths: list[str]) -> None:
        self.files = KeyFiles(paths)
        self.shown = {one.key.blob: one.comment for one in self.files.identities()}
        self.added: dict[bytes, AddIdentity] = {}

    def answer(self, request: Message) -> bytes | None:
        """The reply's type and contents; None to hang up."""
        match request:
            case RequestIdentities():
                pairs = [*self.shown.items(), *((blob, one.comment) for blob, one in self.added.items())]
                return IdentitiesAnswer(tuple((blob, comment.encode()) for blob, comment in pairs)).payload()
            case SignRequest():
                return self.signed(request)
            case AddIdentity():
                self.added[request.key.public.blob] = request
                return SUCCESS
            case AddIdentityConstrained():
                return FAILURE
            case RemoveIdentity():
                known = self.added.pop(request.key, None) or self.shown.pop(request.key, None)
                return SUCCESS if known else FAILURE
            case RemoveAllIdentities():
                self.added.clear()
                self.shown.clear()
                return SUCCESS
            case Extension(name=SessionBind.name):
                return frame(SUCCESS)
        return None

    def signed(self, request: SignRequest) -> bytes:
        """The reply to a request for a signature."""
        flags = SignFlags(request.flags)
        try:
            if request.key in self.added:
                return SignResponse(signatures.sign(self.added[request.key].key, request.data, flags)).payload()
            key = next(one.key for one in self.files.identities() if one.key.blob == request.key)
            return SignResponse(self.files.sign(key, request.data, flags)).payload()
        except (Error, StopIteration):
            return FAILURE


def serve(pipe: winpipe.Pipe, keys: Keys) -> None:
    with pipe:
        while True:
            data = pipe.recv(1024 * 1024)
            if len(data) < 5:
                return
            while len(data) < 4 + int.from_bytes(data[:4], "big"):
                more = pipe.recv(1024 * 1024)
                if not more:
                    return
                data += more
            reply = keys.answer(decode(data[4:]))
            if reply is None:
                return
            pipe.sendall(frame(reply))


if __name__ == "__main__":
    keys = Keys(sys.argv[2:])
    with winpipe.listen(sys.argv[1]) as listener:
        print("ready", flush=True)
        while True:
            threading.Thread(target=serve, args=(listener.accept(), keys), daemon=True).start()
