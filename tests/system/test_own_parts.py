"""lxcfleet's own processes after a patch of the host: they are shown as old, and renewed without the loss of a query."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from .harness import SLEEP, Fleet, alive, until
from .test_network import name_server, pid_in

pytestmark = pytest.mark.system

ASKING = Path(__file__).with_name("asking.py")
A, SRV = 1, 33


class Programs:
    """Copies of the programs that lxcfleet's own parts run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o755)
        self.python = Path(shutil.copy(os.path.realpath(sys.executable), directory / "python3"))
        self.dnsmasq = Path(shutil.copy("/usr/sbin/dnsmasq", directory / "dnsmasq"))

    def replace(self, *programs: Path) -> None:
        """Rename a new file with other bytes over each program, as dpkg does."""
        for program in programs:
            new = program.with_name("dpkg-new")
            shutil.copy2(program, new)
            with new.open("ab") as file:
                file.write(b"new")
            new.rename(program)


@pytest.fixture
def programs() -> Iterator[Programs]:
    if not Path("/usr/sbin/dnsmasq").exists():
        pytest.skip("needs dnsmasq")
    made = Programs(Path(f"/opt/lxcfleet-parts-{os.getpid()}"))
    yield made
    shutil.rmtree(made.directory)


@pytest.fixture
def fleet(programs: Programs) -> Iterator[Fleet]:
    """A fleet with a name server, all of whose own parts are copies."""
    own = Fleet()
    network = f"network: {{bridge: {own.bridge}, domain: {own.tag}.test}}\n"
    own.settings(f"{network}patch: {{policy: manual, quiet: 0}}\n")
    try:
        start(own, programs)
        own.create(own.name(1), own.name(2))
        yield own
        own.clean()
    finally:
        own.run("destroy", "--all", "--force", "-q")
        own.remove()


def start(fleet: Fleet, programs: Programs) -> None:
    fleet.start_daemon(module="tests.system.patched_daemon", python=str(programs.python), DNSMASQ=str(programs.dnsmasq))


def parts(fleet: Fleet) -> dict[str, tuple[int, bool]]:
    """The pid of each part, and whether it runs old code."""
    return {part["name"]: (part["pid"], part["stale"]) for part in fleet.client().parts()}


def old(fleet: Fleet) -> set[str]:
    return {name for name, (_, stale) in parts(fleet).items() if stale}


@contextmanager
def asked(fleet: Fleet, *questions: tuple[str, int, str, int]) -> Iterator[list[tuple[int, int, float]]]:
    """Many clients send queries from a container's network meanwhile. Yields a list that has their results in the end."""
    net, server = f"--net=/proc/{fleet.pid(fleet.name(1))}/ns/net", name_server(fleet)
    found: list[tuple[int, int, float]] = []
    clients = [
        subprocess.Popen(
            ["nsenter", net, sys.executable, str(ASKING), kind, server, str(number), name, str(rate)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for kind, number, name, rate in questions
    ]  # fmt: skip
    try:
        yield found
    finally:
        for client in clients:
            out, err = client.communicate("end", timeout=60)
            asked, lost, longest = out.split()
            found.append((int(asked), int(lost), float(longest)))
            assert not err, err


def everyone(fleet: Fleet) -> Sequence[tuple[str, int, str, int]]:
    """Queries that dnsmasq answers, and queries that the responder answers."""
    known, domain = f"{fleet.name(2)}.{fleet.tag}.test", f"{fleet.tag}.test"
    return (("udp", A, known, 200), ("udp", SRV, f"_x._tcp.{domain}", 200), ("tcp", A, known, 10), ("udp", A, known, 50))


def is_connected(pid: int) -> bool:
    """Whether a process is connected by a Unix socket; proc(5), /proc/net/unix."""
    mine = set()
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            mine.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(state == "03" and inode in mine for _, _, _, _, _, state, inode, *_ in rows)


ALL = {"lxcfleetd", "launcher", "booter", "forwarder", "dnsmasq", "responder"}


def test_all_own_parts_are_renewed_and_no_query_is_lost(fleet: Fleet, programs: Programs) -> None:
    before = parts(fleet)
    assert set(before) == ALL
    assert old(fleet) == set()
    containers = {record["name"]: record["pid"] for record in fleet.records()}
    programs.replace(programs.python, programs.dnsmasq)
    assert old(fleet) == ALL
    ran = fleet.run("stale")
    assert ran.status == 4
    for name in ALL:
        assert f"lxcfleet's own {name} runs old code ({programs.directory}/" in ran.out
    with asked(fleet, *everyone(fleet)) as answers:
        fleet.ok("patch", "notify", "-q")
        until(lambda: fleet.daemon_pid() is not None and old(fleet) == set(), 60, "all parts are renewed")
        # (The containers' monitors are copies of the booter, and old. With this policy they are not restarted.)
        assert not any(part["stale"] for part in fleet.json_any("verify")["parts"])
    assert all(asked > 30 and not lost for asked, lost, _ in answers), answers
    after = parts(fleet)
    assert after["responder"][0] == before["responder"][0], "the responder runs its program anew, in the same process"
    until(lambda: not alive(before["dnsmasq"][0]), what="the old name server has ended")
    assert {record["name"]: record["pid"] for record in fleet.records()} == containers, "containers run on"
    until(lambda: not alive(pid_in(fleet.paths.stand_in_pid) or None), what="what stood in for it has ended")
    fleet.create(fleet.name(3), command=SLEEP)
    a_session_that_began_before_a_patch_is_told_until_it_ends(fleet, programs)


def a_session_that_began_before_a_patch_is_told_until_it_ends(fleet: Fleet, programs: Programs) -> None:
    name = fleet.name(1)
    session = fleet.spawn("exec", name, "--", "cat", stdin=subprocess.PIPE)
    until(lambda: "exec" in parts(fleet), 20, "the session is known")
    programs.replace(programs.python)
    fleet.ok("patch", "notify", "-q")
    until(lambda: old(fleet) == {"exec"}, 60, "the parts are renewed, and the session is not")
    for ran in (fleet.run("stale", name), fleet.run("verify", name)):
        assert ran.status == 4
        assert f"a session of `exec` in {name} since " in ran.out
    assert session.communicate(b"it goes on", timeout=60)[0] == b"it goes on"
    until(lambda: set(parts(fleet)) == ALL, 20, "the session is over")


def test_the_daemon_starts_anew_once_no_client_waits_for_it(fleet: Fleet, programs: Programs) -> None:
    """Clients that are being answered, or come meanwhile, get their answers. Parts that are not old are left alone."""
    before, name = parts(fleet), fleet.name(1)
    waiting = fleet.spawn("wait", name, "--for", "stopped", "--timeout", "60")
    until(lambda: is_connected(waiting.pid), what="it asks the daemon, which takes a second at least to see the patch")
    programs.replace(programs.python)
    fleet.ok("patch", "notify", "-q")
    until(lambda: old(fleet) == {"lxcfleetd"}, 30, "the other parts are renewed")
    assert "lxcfleet's own lxcfleetd runs old code" in fleet.run("patch", "status").out
    assert "it starts itself anew as soon as nothing is under way" in fleet.run("stale").out
    assert old(fleet) == {"lxcfleetd"}, "a client waits for the daemon's answer"
    fleet.ok("stop", name)
    assert waiting.wait(60) == 0
    waiting.communicate()
    command = fleet.spawn("exec", fleet.name(2), "--", "cat", stdin=subprocess.PIPE)
    until(lambda: old(fleet) == set(), 30, "the daemon is renewed, and has answered each of these requests")
    assert command.communicate(b"it goes on", timeout=60)[0] == b"it goes on"
    after = parts(fleet)
    assert after["lxcfleetd"][0] == before["lxcfleetd"][0], "without systemd the new daemon is the same process"
    assert after["dnsmasq"] == before["dnsmasq"], "dnsmasq ran no old code"
    assert fleet.run("verify").status == 4, "the monitor of the container that still runs is old"
    fleet.ok("restart", fleet.name(2))
    assert fleet.run("verify").status == 0
    assert fleet.run("stale").status == 0
