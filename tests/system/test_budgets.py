"""The largest content that one container can give to what lxcfleet reads of it costs the daemon and the others little.

Nothing here is held against a clock: the daemon's own processor time is, and others are held against a quiet run.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lxcfleet.api.queries import VerifyRequest
from lxcfleet.spec.selection import Selection

from .harness import Fleet, source

pytestmark = pytest.mark.system

GROWTH = 64 << 20
"""The bytes by which the daemon may grow at most."""
SLOWER = 10.0
"""How many times as long as in a quiet run others' commands may take at the best of some tries."""


def feed() -> None:
    """Within a container: write and hold as much as it can of what lxcfleet reads."""
    import contextlib
    import mmap
    import os
    import sys

    packages = "".join(
        f"Package: p{number}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {'9' * 150}\n\n"
        for number in range(70_000)
    )
    with open("/var/lib/dpkg/status", "a") as status:
        status.write(packages)
    for name in ("passwd", "group", "shadow"):
        with open(f"/etc/{name}", "a") as accounts:
            accounts.writelines(f"u{number}:x:{number + 2000}:{number}:{'x' * 60}:/:/bin/sh\n" for number in range(20_000))
    deep = "/var/" + "/".join(["a" * 250] * 12)
    os.makedirs(deep)
    os.chdir(deep)
    held = []
    cgroup = "/sys/fs/cgroup/pids" if os.path.isdir("/sys/fs/cgroup/pids") else "/sys/fs/cgroup"
    for number in range(900):  # each takes a descriptor
        name = f"{number}-{'n' * 200}"
        with open(name, "wb") as file:
            file.write(b"x" * 4096)
        with open(name, "r+b") as file:
            held.append(mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC))
        os.rename(name, f"old-{number}")
    for _ in range(200):  # nested cgroups, where the container may make some
        with contextlib.suppress(OSError):
            os.mkdir(cgroup := f"{cgroup}/n")
    print("fed", flush=True)
    sys.stdin.read()


@contextmanager
def fed(fleet: Fleet, name: str) -> Iterator[None]:
    """A process in the container that holds what it made, for as long as this lasts."""
    process = fleet.spawn("exec", name, "--", "python3", "-c", source(feed), stdin=-1)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"fed\n"
        yield
    finally:
        process.kill()
        process.communicate()


def stalls(fleet: Fleet) -> float:
    """How often the daemon needed the processor for more than 0.2 s before it looked for the next request."""
    text = b"".join(fleet.client().metrics()).decode()
    found = re.search(r'^lxcfleet_loop_stalls_total\{clock="processor"\} (\S+)$', text, re.M)
    assert found is not None
    return float(found[1])


def memory(fleet: Fleet) -> int:
    """The bytes of memory that the daemon has for itself."""
    text = Path(f"/proc/{fleet.daemon_pid()}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Private_"))


def best_of(tries: int, work: Callable[[], object]) -> float:
    """The seconds of the fastest of some tries."""
    taken = []
    for _ in range(tries):
        began = time.monotonic()
        work()
        taken.append(time.monotonic() - began)
    return min(taken)


def test_the_largest_content_of_one_container_costs_the_others_little(fleet: Fleet) -> None:
    hostile, other = fleet.name("hostile"), fleet.name("other")
    fleet.create(hostile, other)
    client = fleet.client()
    everything = Selection(everything=True)

    def restart_the_other() -> None:
        fleet.ok("restart", other, "-q")

    looks: list[Callable[[], object]] = [
        lambda: client.stale(everything), lambda: client.shadows(everything), lambda: client.exposure(everything),
        lambda: client.verify(VerifyRequest(everything)), lambda: client.info(hostile), lambda: b"".join(client.metrics()),
    ]  # fmt: skip
    for look in looks:
        look()
    quiet = best_of(3, restart_the_other)
    before, stalled = memory(fleet), stalls(fleet)

    with fed(fleet, hostile):
        done = threading.Event()
        failures: list[BaseException] = []

        def keep_looking() -> None:
            try:
                while not done.is_set():
                    for look in looks:
                        look()
            except BaseException as error:
                failures.append(error)

        looking = threading.Thread(target=keep_looking)
        looking.start()
        try:
            busy = best_of(4, restart_the_other)
        finally:
            done.set()
            looking.join()
        assert not failures
    fleet.ok("restart", hostile, "-q")  # its records are merged

    assert stalls(fleet) == stalled
    assert memory(fleet) - before < GROWTH
    assert busy < SLOWER * quiet
    assert fleet.states() == {hostile: "running", other: "running"}
