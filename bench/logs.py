"""How many lines a second reach journald, and whether any is lost or comes twice: the forwarder with a real journald.

    python3 -m bench.logs [--containers 100] [--rate 1000] [--seconds 10]

As root; no container runs. One process appends to as many consoles' files as liblxc's monitors would, the forwarder follows
them, and a journald of the bench's own, in namespaces of its own, takes the lines. So what is measured is what lxcfleet and
journald add; the monitors' share is liblxc's.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from lxcfleet.logs.servant import Follower, serve

TICK = 0.02
"""Seconds between two appends to a file."""
PATIENCE = 300.0
"""Seconds for which the forwarder may need after the last line was printed."""
_JOURNALD = """
mount --make-rprivate / && mount -t tmpfs tmpfs /run && mount -t tmpfs -o size=8G tmpfs /var/log &&
mkdir -p /run/systemd/journald.conf.d /run/log && echo "$1" >/run/systemd/journald.conf.d/bench.conf &&
echo 512 >/proc/sys/net/unix/max_dgram_qlen && exec /lib/systemd/systemd-journald
"""
_SETTINGS = "[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nRuntimeMaxUse=4G\nReadKMsg=no\nForwardToWall=no\n"


def print_lines(root: Path, containers: int, rate: int, seconds: float) -> None:
    """Append so many lines a second to each container's console."""
    files = [(root / f"c{number}" / "console.log").open("ab", buffering=0) for number in range(containers)]
    begin, done, total = time.monotonic(), 0, int(rate * seconds)
    while done < total:
        upto = min(total, int((time.monotonic() - begin) * rate))
        for file in files:
            file.write(b"".join(b"line %d of what a container has to say\r\n" % number for number in range(done, upto)))
        done = upto
        time.sleep(TICK)


def forward(requests: socket.socket, other: socket.socket) -> None:
    """The forwarder, as lxcfleetd runs it. At the end it tells how much processor time it took."""
    other.close()
    serve(requests, Follower("bench"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"forwarder: {used.ru_utime + used.ru_stime:.1f} s of processor time, {used.ru_maxrss >> 10} MiB", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure how many lines a second reach journald.")
    parser.add_argument("--containers", type=int, default=100)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="lxcfleet-"))
    journald = subprocess.Popen(["unshare", "-mn", "sh", "-c", _JOURNALD, "sh", _SETTINGS])
    inside = Path(f"/proc/{journald.pid}/root/run")
    try:
        _run(asked.containers, asked.rate, asked.seconds, root, inside)
    finally:
        journald.kill()
        journald.wait()
        shutil.rmtree(root)


def _run(containers: int, rate: int, seconds: float, root: Path, inside: Path) -> None:
    path = inside / "systemd/journal/socket"
    while not path.exists():
        time.sleep(0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    settings = {"do": "settings", "to": "journal", "socket": str(path), "rate": 2 * rate, "burst": 10 * rate}
    ours.send(json.dumps(settings).encode())
    forwarder = multiprocessing.Process(target=forward, args=(theirs, ours))
    forwarder.start()
    for number in range(containers):
        directory = root / f"c{number}"
        directory.mkdir()
        (directory / "console.log").touch()
        fields = {"CONTAINER_NAME": f"c{number}", "SYSLOG_IDENTIFIER": f"c{number}"}
        order = {"do": "follow", "name": f"c{number}", "directory": str(directory), "fields": fields, "mark": None}
        ours.send(json.dumps({**order, "over": False, "skip": False}).encode())
    begin = time.monotonic()
    writer = multiprocessing.Process(target=print_lines, args=(root, containers, rate, seconds))
    writer.start()
    writer.join()
    printed = time.monotonic() - begin
    sizes = {directory: (directory / "console.log").stat().st_size for directory in root.iterdir()}
    while any(_sent(directory) < size for directory, size in sizes.items()) and time.monotonic() - begin < PATIENCE:
        time.sleep(0.1)
    took = time.monotonic() - begin
    ours.close()
    forwarder.join(30)
    total = containers * int(rate * seconds)
    told = f"printed in {printed:.1f} s, all passed on after {took:.1f} s"
    print(f"{total} lines: {told}: {total / took:.0f} lines a second", flush=True)
    _check(inside, containers, int(rate * seconds))


def _sent(directory: Path) -> int:
    try:
        return int.from_bytes((directory / "console.sent").read_bytes()[16:24], "little")
    except OSError:
        return 0


def _check(inside: Path, containers: int, lines: int) -> None:
    """Read the journal back, and compare."""
    time.sleep(1)
    argv = ["journalctl", "-q", "-D", str(inside / "log/journal"), "-o", "json", "--output-fields=CONTAINER_NAME,MESSAGE"]
    found: Counter[tuple[str, str]] = Counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as shown:
        assert shown.stdout is not None
        for text in shown.stdout:
            entry = json.loads(text)
            if str(entry["MESSAGE"]).startswith("line "):
                found[entry["CONTAINER_NAME"], entry["MESSAGE"].split()[1]] += 1
    expected = {(f"c{container}", str(line)) for container in range(containers) for line in range(lines)}
    twice = sum(count - 1 for count in found.values())
    print(f"lost: {len(expected - found.keys())}, twice: {twice}")
    sys.exit(int(found.keys() != expected or twice > 0))


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this must be run as root")
    main()
