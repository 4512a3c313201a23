"""A whole fleet for tests: a real daemon, real LXC, and directories that no other fleet uses.

The tests look for a fleet's leftovers on the host itself. They never ask the daemon about them.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import leftovers

from lxcfleet.api.client import Client
from lxcfleet.api.queries import EventsRequest
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection

from .clients import MOST_ARGUMENTS, Clients

ROOT = Path(__file__).resolve().parents[2]
CLIENT = str(ROOT / "bin" / "lxcfleet")
DAEMON = str(ROOT / "bin" / "lxcfleetd")
KILLING = "tests.system.killing_daemon"

SLEEP = ("--", "sleep", "infinity")
"""The command of app containers that only have to run."""

PATIENCE = float(os.environ.get("LXCFLEET_TEST_PATIENCE", "1"))
"""How many times slower than usual the machine may be. An emulated machine is slow."""
TIMEOUT = 120.0 * PATIENCE
"""The seconds that one command may take at most."""
LEAST = 60.0
"""The seconds that `until` waits at least for what must happen. They cost nothing where it happens, and a machine that others
use at the same time can be ten times slower for a while."""

SHORT = ("alive_time: 0.3\n", "rollout: {min_healthy_time: 0.5}\n")
"""Settings of all fleets of tests."""

PIPE = subprocess.PIPE

OTHERS_ETC = re.compile(r"/etc/lxcfleet-t[0-9a-f]{6}(/|$)")
"""The directories of settings of fleets of tests, and what is below them: whatever looks at the whole host sees those of
tests that run beside it, with secrets in them."""


@cache
def clients() -> Clients:
    """What runs command lines."""
    return Clients()


@dataclass(frozen=True)
class Ran:
    """The result of one command line."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON that the command printed."""
        return json.loads(self.out)

    @property
    def results(self) -> dict[str, str]:
        """The status word of each container, from a verb that ran with ``-f json``."""
        return {result["name"]: result["status"] for result in self.json["results"]}


def until(condition: Callable[[], Any], seconds: float = LEAST, what: str = "") -> Any:
    """Wait until ``condition`` gives something true, and return that. It must happen at some time, so ``seconds`` only counts
    above LEAST. That something does *not* happen is never shown by this."""
    most = max(seconds, LEAST) * PATIENCE
    deadline = time.monotonic() + most
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {most:g} s: {what or condition}"
        time.sleep(0.01)
    return found


class Fleet:
    """One fleet, and the command line in front of it."""

    def __init__(self) -> None:
        self.tag = secrets.token_hex(3)
        leftovers.note("fleet", self.tag)
        name = f"lxcfleet-t{self.tag}"
        self.paths = Paths(lxc=Path("/var/lib") / name, run=Path("/run") / name, etc=Path("/etc") / name)
        self.prefix = f"t{self.tag}-"
        self.bridge = f"lt{self.tag}"
        self.paths.etc.mkdir(parents=True)
        # Each fleet names a bridge of its own. Only the tests of the network make it.
        self.usual = f"network: {{bridge: {self.bridge}, default: none, drain: 0}}\n"
        self.settings(self.usual)
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.within: tuple[str, ...] = ()
        """A command in front of the daemon's own, which starts the daemon in other surroundings."""

    def settings(self, text: str) -> None:
        """Write the operator's settings. A daemon reads them when it starts.

        Times that no test should have to wait for are short where ``text`` does not have them.
        """
        more = "".join(line for line in SHORT if f"\n{line.partition(':')[0]}:" not in f"\n{text}")
        self.paths.config_file.write_text(text + more)

    # -- the command line ------------------------------------------------------------------------------------

    def name(self, rest: object) -> str:
        """A name that no other fleet on this host uses: cgroups have no other mark."""
        return f"{self.prefix}{rest}"

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a program that belongs to this fleet."""
        mine = {key: value for key, value in os.environ.items() if not key.startswith("LXCFLEET_")}
        return {**mine, **self.paths.environment(), "TERM": "vt100", **extra}

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a client, and do not wait for its end."""
        options = {"stdin": subprocess.DEVNULL, "stdout": PIPE, "stderr": PIPE, **options}
        return subprocess.Popen([CLIENT, *arguments], env=self.environment(), **options)

    def run(self, *arguments: str, input: bytes = b"", timeout: float = TIMEOUT, **extra: str) -> Ran:
        """Run one command line, which may fail. With variables of its own it is a program from its first line on."""
        if extra or sum(map(len, arguments)) > MOST_ARGUMENTS:
            done = subprocess.run(
                [CLIENT, *arguments],
                input=input,
                capture_output=True,
                timeout=timeout,
                env=self.environment(**extra),
                check=False,
            )
            status, out, err = done.returncode, done.stdout, done.stderr
        else:
            status, out, err = clients().run(arguments, self.environment(), input, timeout)
        return Ran(status, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape"))

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run one command line, which must succeed. Return its stdout."""
        ran = self.run(*arguments, **options)
        assert ran.status == 0, (arguments, ran)
        return ran.out

    def json(self, *arguments: str, **options: Any) -> Any:
        """Run one command line, which must succeed. Return the JSON that it prints."""
        return json.loads(self.ok(arguments[0], "-f", "json", *arguments[1:], **options))

    def json_any(self, *arguments: str) -> Any:
        """Run one command line, which may fail. Return the JSON that it prints."""
        return self.run(*arguments, "-f", "json").json

    def inside(self, name: str, script: str, **options: Any) -> str:
        """Run a shell script in a container, where it must succeed. Return its output."""
        return self.ok("exec", name, "--", "sh", "-c", script, **options).strip()

    # -- containers ------------------------------------------------------------------------------------------

    def create(self, *names: str, command: Sequence[str] = SLEEP, options: Sequence[str] = ()) -> None:
        """Create app containers with these names, or system containers with ``command=()``."""
        for name in names:
            self.ok("create", name, *options, *command)

    def client(self) -> Client:
        """A client of the API, for frequent questions: a command line takes twenty times as long."""
        if self.daemon_pid() is None:
            self.ok("list", "-q")  # the client starts a daemon
        return Client(self.paths, timeout=TIMEOUT)

    def record(self, name: str) -> dict[str, Any]:
        """The record that ``info`` shows of a container."""
        return dict(self.client().info(name))

    def records(self) -> list[dict[str, Any]]:
        """The records that ``list`` shows of all containers."""
        return [dict(record) for record in self.client().containers(Selection())]

    def state(self, name: str) -> str:
        """The state of a container."""
        return str(self.record(name)["state"])

    def pid(self, name: str) -> int:
        """The pid of a container's init, as the host sees it."""
        pid = self.record(name)["pid"]
        assert isinstance(pid, int)
        return pid

    def states(self) -> dict[str, str]:
        """The state of each container, by name."""
        return {record["name"]: record["state"] for record in self.records()}

    def delta(self, name: str) -> Path:
        """The delta directory of a container."""
        return self.paths.container(name).delta

    def events(self, what: str) -> list[dict[str, Any]]:
        """The daemon's events of one kind."""
        return [dict(event) for event in self.client().events(EventsRequest()) if event["what"] == what]

    # -- the daemon ------------------------------------------------------------------------------------------

    def start_daemon(
        self, kill: str = "", *, may_die: bool = False, module: str = "", python: str = sys.executable, **variables: str
    ) -> subprocess.Popen[bytes]:
        """Start a daemon, and wait until it answers. With ``may_die`` the daemon may also end.

        ``kill``: see killing_daemon. ``module``: a module that runs in the daemon's place, by this
        ``python``, with these environment variables.
        """
        self.paths.run.mkdir(exist_ok=True)
        if kill:
            module = KILLING
            self.kill_at(kill)
        program = [python, "-m", module] if module else [DAEMON]
        extra = {**variables, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"} if module else variables
        with (self.paths.run / "daemon.log").open("ab") as log:
            daemon = subprocess.Popen(
                [*self.within, *program], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment(**extra)
            )
        self.daemons.append(daemon)
        until(lambda: self.daemon_pid() == daemon.pid or daemon.poll() is not None, 30, "the daemon answers")
        assert may_die or daemon.poll() is None, self.log()
        return daemon

    def kill_at(self, where: str) -> None:
        """Have the killing daemon that runs, or the next one, kill what ``where`` says: see killing_daemon."""
        (self.paths.run / "kill-at").write_text(where)

    def stop_daemon(self, number: int = signal.SIGTERM) -> None:
        """End the daemon, if one runs, and its launcher. Containers run on."""
        pid, servants = self.daemon_pid(), self.servants()
        if pid is None:
            return
        os.kill(pid, number)
        until(lambda: not alive(pid), 30, "the daemon ends")
        until(lambda: not any(map(alive, servants.values())), 10, "the launcher ends")
        self.reap()

    def reap(self) -> None:
        """Forget the daemons that have ended."""
        self.daemons = [daemon for daemon in self.daemons if daemon.poll() is None]

    def daemon_pid(self) -> int | None:
        """The process that listens on the API's socket; unix(7), SO_PEERCRED."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            if probe.connect_ex(str(self.paths.socket)) != 0:
                return None
            pid: int = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            return pid

    def servants(self) -> dict[str, int]:
        """The daemon's children that fork the others: ``launcher``, ``booter``, and after the first command ``attacher``."""
        marks = {"lxcfleet.launcher.main": "launcher", "booter.py": "booter", "lxcfleet.launcher.attacher": "attacher"}
        return {
            word: pid for pid in children_of(self.daemon_pid()) for mark, word in marks.items() if mark in command_line(pid)
        }

    def log(self) -> str:
        """The log of this fleet's daemons."""
        return (self.paths.run / "daemon.log").read_text(errors="replace")

    # -- traces ----------------------------------------------------------------------------------------------

    def clean(self) -> None:
        """Destroy all containers, and check that nothing of them is left."""
        if self.directories() or self.processes():
            self.ok("destroy", "--all", "--force", "--with-snapshots", "-q")
        self.assert_no_traces()

    def assert_no_traces(self) -> None:
        """Check that nothing of any container is left. The kernel may need a moment to free what the last process held."""
        deadline = time.monotonic() + LEAST * PATIENCE
        while left := self.traces():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    def traces(self) -> list[str]:
        """Everything on this host that belongs to a container of this fleet."""
        snapshots = [str(path) for path in (self.paths.base_snapshots,) if path.exists()]
        return [*self.directories(), *snapshots, *self.mounts(), *self.loops(), *self.cgroups(), *self.processes()]

    def directories(self) -> list[str]:
        """The files and directories at the place of the containers."""
        there = self.paths.lxc.glob("*") if self.paths.lxc.exists() else ()
        record = self.paths.running_record
        written_now = record.with_name(f".{record.name}.new")  # the daemon may be about to write it, at any moment
        others = (record, written_now, self.paths.base_snapshots, self.paths.state)
        return sorted(str(path) for path in there if path not in others)

    def half_done(self) -> list[str]:
        """Directories of containers that are half made or half removed, and notes of actions that are still due."""
        marks = (f"{Paths.NEW_PREFIX}*", f"{Paths.GONE_PREFIX}*", "*/pending")
        return [str(path) for mark in marks for path in self.paths.lxc.glob(mark)]

    def mounts(self) -> list[str]:
        """The fleet's mounts in the host's mount table."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if str(self.paths.run) in line]

    def host_mounts(self) -> int:
        """How many mounts in the host's mount table are of this fleet. Tests that run beside this one mount theirs."""
        return sum(self.tag in line for line in Path("/proc/self/mountinfo").read_text().splitlines())

    def loops(self) -> list[str]:
        """Loop devices on the fleet's mask."""
        found = []
        for file in Path("/sys/block").glob("loop*/loop/backing_file"):
            try:
                text = file.read_text()
            except OSError:
                continue  # the device was released just now
            if f"{self.paths.run}/" in text:
                found.append(f"{file.parts[3]}: {text.strip()}")
        return found

    def cgroups(self) -> list[str]:
        """Cgroups of the fleet's containers, in every hierarchy."""
        return [
            os.path.join(directory, name)
            for directory, names, _ in os.walk("/sys/fs/cgroup")
            for name in names
            if name.startswith(("lxc.payload.", "lxc.monitor.", "lxc.pivot.")) and self.prefix in name
        ]

    def processes(self) -> list[str]:
        """The monitors of the fleet's containers, and all processes in the containers."""
        found = [f"{pid}: {line}" for pid, line in command_lines() if f"[lxc monitor] {self.paths.lxc}" in line]
        for file in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                text = file.read_text()
            except OSError:
                continue
            pid = int(file.parts[2])
            if f"lxc.payload.{self.prefix}" in text and alive(pid):
                found.append(f"{pid}: in a container")
        return found

    def remove(self) -> None:
        """End the fleet. No daemon, process or directory of it is left."""
        for daemon in self.daemons:
            if daemon.poll() is None:
                daemon.terminate()
                daemon.wait(TIMEOUT)
        self.stop_daemon()
        until(lambda: not self.helpers(), 15, "the launcher and its children end")
        for directory in (self.paths.lxc, self.paths.run, self.paths.etc):
            if directory.exists():
                shutil.rmtree(directory)

    def helpers(self) -> list[str]:
        """The processes of the daemon, its launcher and their children."""
        mark = f"LXCFLEET_RUN={self.paths.run}\0".encode()
        return [
            f"{pid}: {line}" for pid, line in command_lines() if "lxcfleet" in line and mark in _read(pid, "environ")
        ]


@contextmanager
def fleet_on_disk(*make: str, options: str = "loop") -> Iterator[Fleet]:
    """A fleet whose containers are on their own ext4 file system of 192 MiB. mkfs gets the options ``make``."""
    fleet = Fleet()
    image = fleet.paths.etc / "disk.ext4"
    fleet.paths.lxc.mkdir()
    with image.open("wb") as file:
        file.truncate(192 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-qF", *make, str(image)], check=True)
        _share(fleet.paths.lxc)
        subprocess.run(["mount", "-o", options, str(image), str(fleet.paths.lxc)], check=True, capture_output=True)
        (fleet.paths.lxc / "lost+found").rmdir()
        fleet.start_daemon()
        yield fleet
        fleet.ok("destroy", "--all", "--force", "-q")
        assert fleet.half_done() == []
        until(lambda: not fleet.cgroups() and not fleet.processes(), 10, "nothing is left")
    finally:
        if fleet.daemons:
            fleet.run("destroy", "--all", "--force", "-q")
            fleet.stop_daemon()
            (fleet.paths.lxc / "ballast").unlink(missing_ok=True)
            until(lambda: subprocess.run(["umount", str(fleet.paths.lxc)], capture_output=True).returncode == 0, 15)
        subprocess.run(["umount", str(fleet.paths.lxc)], capture_output=True, check=False)
        fleet.remove()


def _share(directory: Path) -> None:
    """Have mounts on the directory end everywhere when they end here, as on a host with systemd: namespaces of other fleets,
    whose tests run at the same time, would keep the disk."""
    subprocess.run(["mount", "--bind", str(directory), str(directory)], check=True)
    subprocess.run(["mount", "--make-shared", str(directory)], check=True)


def free_port() -> int:
    """A port that no TCP or UDP socket has at an IPv4 address of the host, below those that connections of others get."""
    while True:
        port = random.randrange(20000, 30000)
        with socket.socket() as stream, socket.socket(type=socket.SOCK_DGRAM) as datagrams, suppress(OSError):
            stream.bind(("", port))
            datagrams.bind(("", port))
            return port


def alive(pid: int | None) -> bool:
    """Whether the process exists and is not a zombie. One whose first thread has ended has its sockets as long as others run:
    a client that came just then was never answered."""
    threads = [] if pid is None else _subdirectories(f"/proc/{pid}/task")
    states = [_read(pid or 0, f"task/{each}/stat").rpartition(b")")[2].split()[:1] for each in threads]
    return any(state not in ([], [b"Z"], [b"X"]) for state in states)


def cgroups_of(name: str) -> list[Path]:
    """The cgroups of a container and of its monitor, in every hierarchy. A look at all cgroups takes far longer."""
    top, ours = "/sys/fs/cgroup", re.compile(rf"lxc\.(payload|monitor)\.{re.escape(name)}(-[0-9].*)?")
    above = [top, *(f"{top}/{each}" for each in _subdirectories(top))]
    return [Path(place, each) for place in above for each in _subdirectories(place) if ours.fullmatch(each)]


def _subdirectories(directory: str) -> list[str]:
    """The names of a directory's directories; none if it is gone: those of other tests' containers come and go."""
    try:
        with os.scandir(directory) as found:
            return [each.name for each in found if each.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def processes_in(name: str) -> list[int]:
    """The processes in a container, as the kernel has them; without those deeper in cgroups of the container's own."""
    found: set[int] = set()
    for cgroup in cgroups_of(name):
        if ".payload." in cgroup.name:
            with suppress(OSError):
                found.update(pid for pid in map(int, (cgroup / "cgroup.procs").read_text().split()) if alive(pid))
    return sorted(found)


def parent_of(pid: int) -> int | None:
    """The parent of a process."""
    words = _read(pid, "stat").rpartition(b")")[2].split()
    return int(words[1]) if words else None


def children_of(pid: int | None) -> list[int]:
    """The children of a process, as the kernel lists them; proc(5), children. A look at all processes may take so long on a
    busy machine that a kill after it comes too late."""
    tasks = _subdirectories(f"/proc/{pid or 0}/task")
    return [int(word) for task in tasks for word in _read(pid or 0, f"task/{task}/children").split()]


def command_line(pid: int) -> str:
    """The command line of a process; empty for a zombie and for the kernel's own."""
    return _read(pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()


def command_lines() -> Iterator[tuple[int, str]]:
    """The pid and the command line of each process, except for zombies and the kernel's own."""
    for directory in Path("/proc").glob("[0-9]*"):
        if line := command_line(int(directory.name)):
            yield int(directory.name), line


def _read(pid: int, file: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""




def source(function: Callable[..., None], arguments: tuple[Any, ...] = ()) -> str:
    """The source of a program that calls ``function``."""
    return f"{inspect.getsource(function)}\n{function.__name__}{arguments!r}"


def python(script: str) -> list[str]:
    """A Python one-liner as a command."""
    return [sys.executable, "-c", script]
