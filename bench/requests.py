#!/usr/bin/python3
"""Measure how much the daemon grows, and how quickly it answers, under many mixed requests of clients that ask side by side.

    /usr/bin/python3 bench/requests.py [--requests 20000] [--clients 50] [--count 5]

Needs root and a minute. Each request has a connection of its own. The benchmark has a fleet of its own. Exit status: 0, or 1
if an answer is another one than it should be, or the daemon grows by more than 2 MiB.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import socket
import struct
import sys
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet
from lxcfleet.api.client import UnixConnection

DIRECTORY = Path("/var/lib/lxcfleet-bench")
RUN = Path("/run/lxcfleet-bench")
MOST = 2 << 20
"""Bytes by which the daemon may grow."""
SETTLE_SECONDS = 4.0
_MIB = 1 << 20
_SECONDS = 60.0

_ASKED = {
    "GET /1.0": 200, "GET /1.0/containers": 200, "GET /1.0/containers/{name}": 200, "GET /metrics": 200,
    "GET /1.0/usage": 200, "GET /1.0/operations": 200, "GET /1.0/events": 200, "GET /1.0/volumes": 200,
    "GET /1.0/containers/none{number}": 404,
    'POST /1.0/containers {"name": "x{number}", "dry_run": true}': 202, 'POST /1.0/containers {"name": "/{number}"}': 400,
}  # fmt: skip
"""The requests, and the status that each of them should get."""


class Clients:
    """Clients that ask, and the answers that were not as they should be."""

    def __init__(self, path: Path, names: list[str]) -> None:
        self._path, self._names = path, names
        self.wrong: collections.Counter[str] = collections.Counter()

    def ask_all(self, requests: int, clients: int) -> None:
        """Ask so often, from so many clients at the same time."""
        threads = [threading.Thread(target=self._ask, args=(requests // clients, seed)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, requests: int, seed: int) -> None:
        chance = random.Random(seed)  # the same requests in each run
        for _ in range(requests):
            asked = chance.choice([*_ASKED])
            filled = asked.replace("{name}", chance.choice(self._names)).replace("{number}", str(chance.randrange(10**6)))
            method, path, *body = filled.split(" ", 2)
            try:
                status = str(self._once(method, path, body[0] if body else None))
            except OSError as error:
                status = str(error)
            if status != str(_ASKED[asked]):
                self.wrong[f"{asked}: {status}"] += 1

    def _once(self, method: str, path: str, body: str | None) -> int:
        connection = UnixConnection(str(self._path), _SECONDS)
        try:
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def _served_by(path: Path) -> int:
    """The pid of the process that listens there; unix(7), SO_PEERCRED."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        pid: int = struct.unpack("iII", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


def main() -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(description="measure how the daemon grows under many requests")
    parser.add_argument("--requests", type=int, default=20000, metavar="N", help="in all (default: 20000)")
    parser.add_argument("--clients", type=int, default=50, metavar="N", help="that ask side by side (default: 50)")
    parser.add_argument("--count", type=int, default=5, metavar="N", help="containers (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    with fleet.prepared(DIRECTORY / "fleet", RUN, options.count) as ours:
        return _measure(ours, options)


def _measure(ours: fleet.Fleet, options: argparse.Namespace) -> int:
    ours.create()
    clients = Clients(ours.paths.socket, [each["name"] for each in ours.json("list")])
    time.sleep(SETTLE_SECONDS)
    daemon = psutil.Process(_served_by(ours.paths.socket))
    before, clock = daemon.memory_info().rss, time.perf_counter()
    clients.ask_all(options.requests, options.clients)
    seconds, grown = time.perf_counter() - clock, daemon.memory_info().rss - before
    wrong = sum(clients.wrong.values())
    print(f"{options.requests} requests of {options.clients} clients in {seconds:.1f} s; {wrong} other answers than expected")
    print(f"the daemon has {before / _MIB:.1f} MiB, and grew by {grown / _MIB:.1f} MiB; target {MOST / _MIB:.0f} MiB")
    for what, often in clients.wrong.most_common(10):
        print(f"  {often} times {what}")
    if options.json is not None:
        options.json.write_text(json.dumps({"seconds": seconds, "grown": grown, "wrong": wrong}))
    return 0 if not wrong and grown <= MOST else 1


if __name__ == "__main__":
    sys.exit(main())
