"""A server of a named pipe that has one instance at a time, made anew for each client: in between, the name is gone.

    python one_client_pipe.py PIPE REPLY

Each request is answered with REPLY (in hex). Two of these on one pipe take its clients in turn. "ready" on standard
output says that the first instance is there.
"""

import _winapi
import ctypes
import sys

from pageantry import winpipe
from pageantry.winpipe import _kernel, _security

assert sys.platform == "win32"

CONNECTED, BROKEN, NO_DATA = 535, 109, 232

if __name__ == "__main__":
    reply = bytes.fromhex(sys.argv[2])
    # A pipe without a descriptor would belong to the administrators, for one of them, or to nobody, under Wine.
    descriptor = _security.Descriptor((), 0)
    security = _kernel.SecurityAttributes(ctypes.sizeof(_kernel.SecurityAttributes), descriptor.address, False)
    first = True
    while True:
        pipe = _winapi.CreateNamedPipe(
            winpipe.path(sys.argv[1]), _winapi.PIPE_ACCESS_DUPLEX, 0, 255, 65536, 65536, 0, ctypes.addressof(security)
        )
        if first:
            print("ready", flush=True)
        first = False
        try:
            _winapi.ConnectNamedPipe(pipe, overlapped=False)
        except OSError as error:
            if error.winerror not in (CONNECTED, NO_DATA):
                raise
        try:
            while _winapi.ReadFile(pipe, 65536)[0]:
                _winapi.WriteFile(pipe, reply)
        except OSError as error:
            if error.winerror not in (BROKEN, NO_DATA):
                raise
        _winapi.CloseHandle(pipe)
