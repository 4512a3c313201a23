"""A user of the host who says to be the monitor of a container, for real: root must not believe him."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lxcfleet.errors import WrongState
from lxcfleet.host.lxc import attach, liblxc

from .harness import Fleet, alive, source, until

pytestmark = pytest.mark.system

NOBODY = 65534


def pose(address: str, pid: int, listens: bool) -> None:
    """Have the address of a monitor, and say as that: it runs, its process 1 is ``pid``, its namespaces are the host's."""
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
    """Somebody poses as the monitor of a container, for the time being; a process of root's that he passes off as its."""
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


def test_the_launchers_children_do_not_believe_him_either(fleet: Fleet, name: str) -> None:
    """The daemon may have seen the monitor just before its end."""
    lxc_path = str(fleet.paths.lxc)
    with impostor(fleet, name):
        for ask in (liblxc.init_pid, liblxc.freeze, liblxc.unfreeze):
            with pytest.raises(WrongState, match=f"uid {NOBODY}"):
                ask(name, lxc_path)
        with pytest.raises(WrongState, match=f"uid {NOBODY}"):
            attach.check(name, lxc_path, ["true"], {}, 5)


def test_who_only_takes_the_address_is_told_of(fleet: Fleet, name: str) -> None:
    with impostor(fleet, name, listens=False):
        assert fleet.states() == {name: "stopped"}
        ran = fleet.run("start", name)
        assert ran.status == 1
        assert "some process, which is not its monitor" in ran.err
    fleet.ok("start", name)


def test_what_root_starts_without_us_is_believed(fleet: Fleet, name: str) -> None:
    """As lxc@.service does it."""
    with subprocess.Popen(
        ["lxc-start", "-F", "-P", str(fleet.paths.lxc), "-n", name],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as started:  # fmt: skip
        until(lambda: fleet.states() == {name: "running"}, 20, "it is seen")
        assert os.getpgid(fleet.pid(name)) != os.getpgid(started.pid)
        assert fleet.inside(name, "hostname") == name
        fleet.ok("freeze", name)
        fleet.ok("unfreeze", name)
        fleet.ok("stop", name)
