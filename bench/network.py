#!/usr/bin/python3
"""Measure the cost of the network, compared with `network none` in the same run, and how fast names are found.

    /usr/bin/python3 bench/network.py [--count 100] [--rounds 3] [--json FILE]
    /usr/bin/python3 bench/network.py --guard [--rounds 20] [--json FILE]

Needs root, a quiet machine and about two minutes. Each round starts the same containers with and without a network, by turns.
Then single containers start and stop, and their names are looked up all the time.

--guard measures instead how much one container sends to another on the bridge per second of its processor time, with and
without the rules against false addresses (`network.guard`), by turns. It sends packets of 64 bytes, where a rule costs most,
and a stream. Processor time depends less on the load of other programs than elapsed time.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import fleet, observe
from lxcfleet.network.rules import rules

DIRECTORY = Path("/var/lib/lxcfleet-bench")
RUN = Path("/run/lxcfleet-bench")
SCRIPT = "echo ready >/ready; exec sleep infinity"


class Answer(NamedTuple):
    """An answer of the name server, with the times before and after it (time.time())."""

    asked: float
    answered: float
    addresses: frozenset[str]


class Asker:
    """Asks the fleet's name server for the addresses of a name all the time."""

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
    """Seconds until ``count`` new containers were ready."""
    names = [f"{fleet.PREFIX}{number}" for number in range(1, count + 1)]
    files = {name: own.paths.container(name).delta / "ready" for name in names}
    began, clock = time.time(), time.perf_counter()
    own.cli("create", fleet.PREFIX, "-n", str(count), "--network", network, "--", "sh", "-c", SCRIPT)
    observe.wait_written(files, began)
    taken = time.perf_counter() - clock
    own.cli("destroy", f"{fleet.PREFIX}[1-9]*", "--force")
    return taken


def name_of_one(own: fleet.Fleet, server: str, number: int) -> tuple[float, int]:
    """Start and stop a container: seconds from ready to the first answer, and the number of answers after its end.

    A container is ready when its command has written a file. Seconds are negative if the name was known before.
    """
    name = f"{fleet.PREFIX}x{number}"
    with Asker(server, f"{name}.fleet") as asker:
        began = time.time()
        own.cli("create", name, "--", "sh", "-c", SCRIPT)
        observe.wait_written({name: own.paths.container(name).delta / "ready"}, began)
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


_SINK = """
import socket
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.bind(("", 7))  # they are thrown away when its buffer is full
server = socket.create_server(("", 7))
while True:
    connection, _ = server.accept()
    while connection.recv(1 << 20):
        pass
"""
_SENDERS = {
    "packets": """
import socket, sys, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.connect((sys.argv[1], 7))
count, data, begin = 0, b"x" * 64, time.process_time()
while time.process_time() < begin + 0.5:
    for _ in range(500):
        sender.send(data)
    count += 500
print(count / (time.process_time() - begin))
""",
    "stream": """
import socket, sys, time
sender = socket.create_connection((sys.argv[1], 7))
count, data, begin = 0, b"x" * (1 << 18), time.process_time()
while time.process_time() < begin + 0.5:
    count += sender.send(data)
print(count / (time.process_time() - begin) / 1e6)
""",
}
"""Each sends for half a second of processor time and prints how much per second: packets or megabytes."""
_NFT = "/usr/sbin/nft"


def guard_cost(own: fleet.Fleet, rounds: int) -> dict[str, float]:
    """The rates with and without the guard, and the medians of the rounds' ratios (with the guard by without)."""
    source, sink = f"{fleet.PREFIX}1", f"{fleet.PREFIX}2"
    own.cli("create", source, "--", "sleep", "infinity")
    own.cli("create", sink, "--", "python3", "-c", _SINK)
    address = own.json("info", sink)["addresses"][0]
    chain = ["chain", "bridge", rules.table(fleet.BRIDGE), "guard"]
    guard = subprocess.run([_NFT, "list", *chain], capture_output=True, check=True).stdout
    samples: dict[tuple[str, bool], list[float]] = {(kind, on): [] for kind in _SENDERS for on in (True, False)}
    for number in range(rounds):
        for on in (True, False) if number % 2 else (False, True):
            subprocess.run([_NFT, "delete", *chain], capture_output=True, check=False)
            if on:
                subprocess.run([_NFT, "-f", "-"], input=guard, check=True)
            for kind, script in _SENDERS.items():
                samples[kind, on].append(float(own.cli("exec", source, "--", "python3", "-c", script, address)))
        said = ", ".join(f"{kind} {samples[kind, True][-1] / samples[kind, False][-1]:.3f}" for kind in _SENDERS)
        print(f"round {number + 1}, with by without: {said}", file=sys.stderr)
    found = {}
    for kind, unit in (("packets", "per_s"), ("stream", "mb_per_s")):
        with_it, without = samples[kind, True], samples[kind, False]
        found[f"{kind}_guarded_{unit}"] = statistics.median(with_it)
        found[f"{kind}_open_{unit}"] = statistics.median(without)
        found[f"{kind}_ratio"] = statistics.median(one / other for one, other in zip(with_it, without, strict=True))
    return found


def measure_guard(options: argparse.Namespace) -> int:
    """Carry out --guard."""
    own = fleet.Fleet(DIRECTORY / "network", RUN, 2, "bridge")
    with fleet.Host(2):
        try:
            own.prepare()
            found = guard_cost(own, options.rounds)
        finally:
            own.cli("destroy", "--all", "--force")
            own.end()
            own.clear()
    report(found, options.json)
    return 0


def report(found: dict[str, float], file: Path | None) -> None:
    """Print the results, and write them to ``file`` if there is one."""
    for what, value in found.items():
        print(f"{what}: {value:.3f}" if value < 10 else f"{what}: {value:.2f}")
    if file:
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")


def main() -> int:
    """Run the benchmark; 0, or 1 if an answer led to a container that had ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--guard", action="store_true")
    parser.add_argument("--names", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.guard:
        return measure_guard(options)
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
    report(found, options.json)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
