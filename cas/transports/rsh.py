"""What rsync starts in the place of ssh: passes its bytes to the connection that cas has open already.

Run as a script, with the standard library alone: `rsh.py DESCRIPTOR [-l USER] HOST COMMAND…`, the descriptor being
one end of a pair of sockets. The command goes first, as one line; then bytes both ways; the command's end is the
socket's.
"""

import os
import socket
import sys
import threading


def main(arguments: list[str]) -> None:
    descriptor, *words = arguments
    if words[0] == "-l":
        words = words[2:]
    connection = socket.socket(fileno=int(descriptor))
    connection.sendall(" ".join(words[1:]).encode() + b"\n")  # joined as ssh joins them
    threading.Thread(target=_upwards, args=(connection,), daemon=True).start()
    while content := connection.recv(1 << 16):
        os.write(1, content)


def _upwards(connection: socket.socket) -> None:
    while content := os.read(0, 1 << 16):
        connection.sendall(content)
    connection.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1:])
