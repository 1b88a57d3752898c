"""A stand-in for an agent of Cygwin's, MSYS2's or Git for Windows', made of what is known of their sockets.

    python cygwin_server.py PATH REPLY [USER]

Makes the file at PATH and answers each request with REPLY (in hex) to clients that know the secret, say who they are,
and are root or USER. "ready" on standard output says that it listens.
"""

import os
import secrets
import socket
import struct
import sys
import threading

CREDENTIALS = struct.Struct("<3I")  # process, user, group


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (piece := connection.recv(size - len(data))):
        data += piece
    return data


def serve(connection: socket.socket, secret: bytes, reply: bytes, user: int) -> None:
    with connection:
        connection.settimeout(60)
        if receive(connection, 16) != secret:
            return
        connection.sendall(secret)
        _, client, _ = CREDENTIALS.unpack(receive(connection, CREDENTIALS.size))
        connection.sendall(CREDENTIALS.pack(os.getpid(), user, user))
        while client in (0, user) and connection.recv(65536):
            connection.sendall(reply)


if __name__ == "__main__":
    path, reply, *more = sys.argv[1:]
    secret = secrets.token_bytes(16)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        numbers = "-".join(f"{number:08X}" for number in struct.unpack("<4I", secret))
        with open(path, "wb") as file:
            file.write(f"!<socket >{port} s {numbers}\0".encode())
        print("ready", flush=True)
        while True:
            arguments = (listener.accept()[0], secret, bytes.fromhex(reply), int(more[0]) if more else 197609)
            threading.Thread(target=serve, args=arguments, daemon=True).start()
