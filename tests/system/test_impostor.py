"""A user of the host attacks the abstract socket of a container's monitor: he poses as the monitor, or crowds it."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lxcfleet.errors import WrongState
from lxcfleet.host.lxc import attach, liblxc

from .harness import SLEEP, Fleet, alive, parent_of, source, until

pytestmark = pytest.mark.system

NOBODY = 65534


def pose(address: str, pid: int, listens: bool) -> None:
    """Take the address of a monitor, and answer as it: running, process 1 is ``pid``, the namespaces are the host's."""
    import os
    import socket
    import struct
    import threading

    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

    def answer(connection: socket.socket) -> None:
        while len(request := connection.recv(16)) == 16:
            command, size, _ = struct.unpack("iiQ", request)
            if size > 0:
                connection.recv(size)
            value = {3: 2, 4: pid, 5: 0}.get(command)  # liblxc's commands.h: state, process 1, clone flags
            connection.sendall(struct.pack("iiQ", -38 if value is None else 0, 0, value or 0))

    taken = socket.socket(socket.AF_UNIX)
    taken.bind(f"\0{address}")
    if listens:
        taken.listen(50)
    print("ready", flush=True)
    while listens:
        threading.Thread(target=answer, args=(taken.accept()[0],), daemon=True).start()
    threading.Event().wait()


def address(fleet: Fleet, name: str) -> str:
    return f"{fleet.paths.lxc}/{name}/command"


@contextmanager
def impostor(fleet: Fleet, name: str, *, listens: bool = True) -> Iterator[int]:
    """A user poses as the monitor of a container meanwhile. Yields the pid of root's process that he claims as process 1."""
    with subprocess.Popen(["sleep", "600"]) as victim:
        program = [sys.executable, "-c", source(pose, (address(fleet, name), victim.pid, listens))]
        with subprocess.Popen(program, stdout=subprocess.PIPE, cwd="/") as posing:
            try:
                assert posing.stdout is not None
                assert posing.stdout.readline() == b"ready\n"
                yield victim.pid
            finally:
                posing.kill()
                victim.kill()


@pytest.fixture
def name(fleet: Fleet) -> str:
    """A stopped container."""
    own = fleet.name("a")
    fleet.ok("create", own, "--no-start", "--", "sleep", "infinity")
    return own


def test_nobody_but_root_passes_for_a_monitor(fleet: Fleet, name: str) -> None:
    with impostor(fleet, name) as victim:
        assert fleet.states() == {name: "stopped"}
        assert (fleet.record(name)["state"], fleet.record(name)["pid"]) == ("stopped", None)
        ran = fleet.run("exec", name, "--", "readlink", "/proc/self/ns/mnt")
        assert (ran.status, ran.out) == (125, "")
        assert "is not running" in ran.err
        fleet.ok("stop", name)
        fleet.run("freeze", name)
        assert alive(victim)
        ran = fleet.run("start", name)
        assert ran.status == 1
        assert f"uid {NOBODY}" in ran.err
        assert f"ss -xap | grep -F @{address(fleet, name)}" in ran.err
        found = subprocess.run(["ss", "-xap"], capture_output=True, text=True, check=True).stdout
        assert f"@{address(fleet, name)}" in found
        assert fleet.log().count(f"{name} does not count as running: a process of uid {NOBODY}") == 1
        assert alive(victim)
    fleet.ok("start", name)
    assert fleet.inside(name, "hostname") == name
    fleet.ok("stop", name)
    with impostor(fleet, name) as victim:
        fleet.ok("destroy", name)
        assert alive(victim)
    assert fleet.states() == {}


def test_the_launchers_children_do_not_believe_an_impostor(fleet: Fleet, name: str) -> None:
    """The daemon may have seen the monitor just before its end."""
    lxc_path = str(fleet.paths.lxc)
    with impostor(fleet, name):
        for ask in (liblxc.init_pid, liblxc.freeze, liblxc.unfreeze):
            with pytest.raises(WrongState, match=f"uid {NOBODY}"):
                ask(name, lxc_path)
        with pytest.raises(WrongState, match=f"uid {NOBODY}"):
            attach.check(name, lxc_path, ["true"], {}, 5)


def test_an_impostor_that_only_takes_the_address_is_reported(fleet: Fleet, name: str) -> None:
    with impostor(fleet, name, listens=False):
        assert fleet.states() == {name: "stopped"}
        ran = fleet.run("start", name)
        assert ran.status == 1
        assert "some process, which is not its monitor" in ran.err
    fleet.ok("start", name)


def test_a_monitor_that_root_starts_without_lxcfleet_is_believed(fleet: Fleet, name: str) -> None:
    """lxc@.service starts a container like this."""
    with subprocess.Popen(
        ["lxc-start", "-F", "-P", str(fleet.paths.lxc), "-n", name],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as started:  # fmt: skip
        until(lambda: fleet.states() == {name: "running"}, 20, "the daemon sees the container")
        assert os.getpgid(fleet.pid(name)) != os.getpgid(started.pid)
        assert fleet.inside(name, "hostname") == name
        fleet.ok("freeze", name)
        fleet.ok("unfreeze", name)
        fleet.ok("stop", name)


def crowd(address: str, count: int) -> None:
    """Hold ``count`` connections to a monitor, and open those anew that it closed."""
    import os
    import resource
    import socket
    import time

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with open("/proc/self/uid_map") as ids:
        outside = ids.read().split()[2] == "4294967295"
    if outside:  # on the host, not in a container
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    held: list[socket.socket] = []
    while True:
        for _ in range(count - len(held)):
            held.append(socket.socket(socket.AF_UNIX))
            held[-1].connect(f"\0{address}")
        print("ready", flush=True)
        time.sleep(0.5)
        held = []


def ask(address: str, count: int) -> None:
    """Ask a monitor ``count`` times for what only root may ask for."""
    import os
    import socket

    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    for _ in range(count):
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(f"\0{address}")
                sock.send(bytes(16))
            except OSError:
                continue


@contextmanager
def crowded(fleet: Fleet, name: str) -> Iterator[None]:
    """A user crowds the monitor of a container meanwhile."""
    program = [sys.executable, "-c", source(crowd, (address(fleet, name), 3000))]
    with subprocess.Popen(program, stdout=subprocess.PIPE, cwd="/") as holding:
        try:
            assert holding.stdout is not None
            for _ in range(2):
                assert holding.stdout.readline() == b"ready\n"
            yield
        finally:
            holding.kill()


def monitor_of(fleet: Fleet, name: str) -> int:
    found = parent_of(fleet.pid(name))
    assert found is not None
    return found


def test_a_crowd_of_connections_does_not_end_a_container(fleet: Fleet) -> None:
    """liblxc's monitor ended when it had no descriptor left, and the container with it."""
    name = fleet.name("a")
    fleet.create(name)
    pid, monitor = fleet.pid(name), monitor_of(fleet, name)
    with crowded(fleet, name):
        until(lambda: f"{name}: processes of uid {NOBODY} crowd" in fleet.log(), 10, "the log names the user")
        until(lambda: len(os.listdir(f"/proc/{monitor}/fd")) < 1000, 10, "the monitor closes the connections")
        assert fleet.inside(name, "hostname") == name
        assert fleet.pid(name) == pid
        fleet.ok("freeze", name)
        fleet.ok("unfreeze", name)
        fleet.ok("stop", name)
        assert fleet.states() == {name: "stopped"}


def test_a_container_in_the_hosts_network_does_not_end_another(fleet: Fleet) -> None:
    name, other = fleet.name("a"), fleet.name("b")
    fleet.create(name)
    fleet.create(other, options=["--network", "host"])
    pid = fleet.pid(name)
    with fleet.spawn("exec", other, "--", "python3", "-c", source(crowd, (address(fleet, name), 1500))) as holding:
        try:
            assert holding.stdout is not None
            for _ in range(2):
                assert holding.stdout.readline() == b"ready\n"
            assert fleet.inside(name, "hostname") == name
            assert fleet.pid(name) == pid
        finally:
            holding.terminate()


def test_monitors_that_a_former_daemon_started_get_more_descriptors(fleet: Fleet) -> None:
    """A daemon stops a monitor to shut strangers out. If the daemon is killed then, the next one continues the monitor."""
    name = fleet.name("a")
    fleet.create(name)
    monitor = monitor_of(fleet, name)
    _, hard = resource.prlimit(monitor, resource.RLIMIT_NOFILE)
    fleet.stop_daemon(signal.SIGKILL)
    resource.prlimit(monitor, resource.RLIMIT_NOFILE, (1024, hard))
    os.kill(monitor, signal.SIGSTOP)
    fleet.start_daemon()
    until(lambda: resource.prlimit(monitor, resource.RLIMIT_NOFILE)[0] > 1024, 10, "the monitor may have more descriptors")
    assert fleet.inside(name, "ulimit -n") == "1024"
    with crowded(fleet, name):
        assert fleet.inside(name, "hostname") == name


def test_containers_have_the_usual_limit_of_descriptors(fleet: Fleet) -> None:
    name = fleet.name("a")
    fleet.create(name)
    limits = Path(f"/proc/{fleet.pid(name)}/limits").read_text()
    assert re.search(r"Max open files +1024 ", limits), limits
    assert resource.prlimit(monitor_of(fleet, name), resource.RLIMIT_NOFILE)[0] > 1024


def test_requests_that_a_monitor_refuses_do_not_fill_the_disk(fleet: Fleet) -> None:
    """liblxc writes some lines into the container's log for each request: without a limit, 14 MB in a second."""
    name = fleet.name("a")
    fleet.ok("create", name, *SLEEP)
    log, largest = fleet.paths.container(name).lxc_log, 0
    with subprocess.Popen([sys.executable, "-c", source(ask, (address(fleet, name), 60_000))], cwd="/") as asking:
        while asking.poll() is None:
            largest = max(largest, log.stat().st_size)
            time.sleep(0.01)
    assert asking.returncode == 0
    assert largest > 0
    until(lambda: log.stat().st_size <= 2 << 20, 10, "the log is cut")
    assert largest < 20 << 20
    assert fleet.inside(name, "hostname") == name
