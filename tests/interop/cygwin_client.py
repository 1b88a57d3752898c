"""A stand-in for a client of Cygwin's, MSYS2's or Git for Windows', made of what is known of their sockets.

    python cygwin_client.py PATH REQUEST...

Connects by the file at PATH as Cygwin does, one step after the other; sends each REQUEST (in hex) and prints the reply.
"""

import os
import re
import socket
import struct
import sys

CREDENTIALS = struct.Struct("<3I")  # process, user, group
FORM = rb"!<socket >(\d+) s ([0-9A-Fa-f]{8})-([0-9A-Fa-f]{8})-([0-9A-Fa-f]{8})-([0-9A-Fa-f]{8})\0"


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            sys.exit("the agent hung up")
        data += piece
    return data


if __name__ == "__main__":
    path, *requests = sys.argv[1:]
    with open(path, "rb") as file:
        match = re.fullmatch(FORM, file.read())
    if not match:
        sys.exit("no socket of Cygwin's")
    secret = struct.pack("<4I", *(int(number, 16) for number in match.groups()[1:]))
    with socket.create_connection(("127.0.0.1", int(match[1])), 30) as connection:
        connection.sendall(secret)
        if receive(connection, 16) != secret:
            sys.exit("the agent does not know the secret")
        connection.sendall(CREDENTIALS.pack(os.getpid(), 197609, 197121))
        process, *_ = CREDENTIALS.unpack(receive(connection, CREDENTIALS.size))
        print(process)
        for request in requests:
            connection.sendall(bytes.fromhex(request))
            size = receive(connection, 4)
            print((size + receive(connection, int.from_bytes(size, "big"))).hex())
