#!/usr/bin/python3
"""Measure what the network costs and how fast names are: against `network none`, in the same run.

    /usr/bin/python3 bench/network.py [--count 100] [--rounds 3] [--json FILE]

Takes root, a quiet machine and some two minutes. Per round: the same containers with and without network, by turns;
then single containers, whose names are asked for all the time while they start and stop.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import struct
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet

DIRECTORY = Path("/var/lib/lxcfleet-bench")
RUN = Path("/run/lxcfleet-bench")
SCRIPT = "echo ready >/ready; exec sleep infinity"


class Answer(NamedTuple):
    """What the name server said, and between which moments (time.time())."""

    asked: float
    answered: float
    addresses: frozenset[str]


class Asker:
    """Asks for the addresses of a name all the time, by the fleet's own name server."""

    def __init__(self, server: str, name: str) -> None:
        self._server = server
        labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
        self._question = labels + struct.pack("!HH", 1, 1)
        self._end = threading.Event()
        self.answers: list[Answer] = []
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect((self._server, 53))
            number = 0
            while not self._end.is_set():
                number = (number + 1) & 0xFFFF
                asked = time.time()
                client.send(struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + self._question)
                try:
                    message = client.recv(4096)
                except OSError:
                    continue
                if message[:2] == struct.pack("!H", number):
                    self.answers.append(Answer(asked, time.time(), self._read(message)))
                time.sleep(0.0005)

    def _read(self, message: bytes) -> frozenset[str]:
        found, at = set(), 12 + len(self._question)
        for _ in range(struct.unpack_from("!H", message, 6)[0]):
            size = struct.unpack_from("!H", message, at + 10)[0]
            found.add(socket.inet_ntoa(message[at + 12 : at + 12 + size]))
            at += 12 + size
        return frozenset(found)


def starts(own: fleet.Fleet, network: str, count: int) -> float:
    """Seconds until so many new containers were ready."""
    names = [f"{fleet.PREFIX}{number}" for number in range(1, count + 1)]
    files = {name: own.paths.container(name).delta / "ready" for name in names}
    began, clock = time.time(), time.perf_counter()
    own.cli("create", fleet.PREFIX, "-n", str(count), "--network", network, "--", "sh", "-c", SCRIPT)
    fleet.observe.wait_written(files, began)
    taken = time.perf_counter() - clock
    own.cli("destroy", f"{fleet.PREFIX}[1-9]*", "--force")
    return taken


def name_of_one(own: fleet.Fleet, server: str, number: int) -> tuple[float, int]:
    """A container starts and stops: seconds from ready to the first answer, and answers that lead to nobody.

    Ready is when its command, the first thing that runs in it, has written a file; negative: it was known before.
    """
    name = f"{fleet.PREFIX}x{number}"
    with Asker(server, f"{name}.fleet") as asker:
        began = time.time()
        own.cli("create", name, "--", "sh", "-c", SCRIPT)
        fleet.observe.wait_written({name: own.paths.container(name).delta / "ready"}, began)
        ready = (own.paths.container(name).delta / "ready").stat().st_mtime
        pid = int(own.json("info", name)["pid"])
        time.sleep(0.1)
        process = os.pidfd_open(pid)
        stopping = threading.Thread(target=own.cli, args=("stop", name))
        stopping.start()
        select.select([process], [], [], 30)
        ended = time.time()
        os.close(process)
        stopping.join()
        time.sleep(0.1)
    first = min(answer.answered for answer in asker.answers if answer.addresses)
    wrong = sum(1 for answer in asker.answers if answer.asked > ended and answer.addresses)
    own.cli("destroy", name)
    return first - ready, wrong


def main() -> int:
    """Run; 0, or 1 if an answer led to nobody."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--names", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    own = fleet.Fleet(DIRECTORY / "network", RUN, options.count, "bridge")
    samples: dict[str, list[float]] = {"none": [], "bridge": []}
    delays: list[float] = []
    wrong = 0
    with fleet.Host(options.count):
        try:
            own.prepare()
            own.cli("create", f"{fleet.PREFIX}0", "--", "sleep", "infinity")  # the bridge stays
            for number in range(options.rounds):
                for network in ("none", "bridge") if number % 2 else ("bridge", "none"):
                    samples[network].append(starts(own, network, options.count))
                    print(f"round {number + 1}, {network}: {samples[network][-1]:.2f} s", file=sys.stderr)
            address = own.json("info", f"{fleet.PREFIX}0")["addresses"][0]
            server = socket.inet_ntoa(struct.pack("!I", struct.unpack("!I", socket.inet_aton(address))[0] & ~0xFFFF | 1))
            for number in range(options.names):
                delay, gone = name_of_one(own, server, number)
                delays.append(delay)
                wrong += gone
        finally:
            own.cli("destroy", "--all", "--force")
            own.end()
            own.clear()
    medians = {network: statistics.median(values) for network, values in samples.items()}
    found = {
        "network_ms_per_container": (medians["bridge"] - medians["none"]) / options.count * 1000,
        "none_s": medians["none"], "bridge_s": medians["bridge"],
        "name_after_ready_ms_median": statistics.median(delays) * 1000, "name_after_ready_ms_max": max(delays) * 1000,
        "answers_with_an_address_that_is_gone": wrong,
    }  # fmt: skip
    for what, value in found.items():
        print(f"{what}: {value:.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
