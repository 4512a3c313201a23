"""Asks a name server all the time, over UDP or TCP, until its stdin is closed: prints how many questions it asked, how many
had no answer, and the longest wait in seconds.

    asking.py udp|tcp SERVER TYPE NAME PER_SECOND
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time

TIMEOUT = 4.5
"""glibc asks again after five seconds, and its user has seen that."""


def ask(kind: str, server: str, question: bytes) -> bool:
    """Whether the question was answered."""
    stream = kind == "tcp"
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM if stream else socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.connect((server, 53))
        client.sendall(struct.pack("!H", len(question)) + question if stream else question)
        reply = client.recv(4096)
        return bool(reply) and reply[2 * stream :][3] & 15 in (0, 3)


def main() -> None:
    """Ask until there is something on stdin, or its end."""
    kind, server, number, name, rate = sys.argv[1:]
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, int(number), 1)
    asked, lost, longest = 0, 0, 0.0
    while not select.select([sys.stdin], [], [], 0)[0]:
        began = time.monotonic()
        asked += 1
        try:
            lost += not ask(kind, server, question)
        except OSError as error:
            print(f"{kind} {number}: {error}", file=sys.stderr)
            lost += 1
        took = time.monotonic() - began
        longest = max(longest, took)
        time.sleep(max(0.0, 1 / float(rate) - took))
    print(asked, lost, f"{longest:.3f}")


if __name__ == "__main__":
    main()
