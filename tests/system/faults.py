"""One call of the C library that fails, in the daemon, its launcher, its booter or any child: what becomes of containers?

A trial makes the n-th call of an action fail that is about a path of the fleet's (or is a fork), with one error, once or
from then on. Afterwards nothing is lost, the answer and the state that the daemon tells are what the kernel shows, a second
try works, and then nothing is left that nobody owns.

    /usr/bin/python3 -m tests.system.faults [--some N] [SCENARIO]…     # all trials, or N of each; `make test-faults`
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import mmap
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import leftovers

from lxcfleet.api.client import Client
from lxcfleet.api.requests import ActionRequest, CreateRequest, RolloutRequest, SetRequest
from lxcfleet.errors import FleetError
from lxcfleet.paths import Paths
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

from .fault_verbs import VERBS, Scenario
from .harness import PATIENCE, Fleet, alive, cgroups_of, command_lines, processes_in, until

KINDS = ("open", "create", "write", "rename", "fsync", "mount", "fork", "mkdir", "unlink", "link")
"""The kinds of calls, in the order of faults.c. create: an open for writing."""

_DISK = (errno.ENOSPC, errno.EROFS, errno.EIO)
ERRORS: dict[str, tuple[int, ...]] = {
    "open": (errno.EMFILE, errno.ENOMEM, errno.EIO),
    "create": (errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.ENOMEM, errno.EIO),
    "write": (errno.ENOSPC, errno.EIO),
    "rename": (*_DISK, errno.ENOMEM),
    "fsync": (errno.EIO, errno.ENOSPC),
    "mount": (errno.ENOMEM, errno.EIO, errno.ENOSPC),
    "fork": (errno.ENOMEM, errno.EAGAIN),
    "mkdir": (*_DISK, errno.ENOMEM),
    "unlink": (errno.EROFS, errno.EIO),
    "link": (*_DISK,),
}
"""The errors that a call of each kind may give."""

LASTING = (errno.ENOSPC, errno.EROFS, errno.ENOMEM)
"""Errors that are likely to stay for a while once they have come: each is tried that way, too."""

DEFECTS = ("Traceback", "unexpectedly", "OSError:", "Error: [Errno", "has no attribute")
"""What neither an answer nor the log may have: an error that nobody foresaw."""

_HEAD = struct.Struct("=4iI3i")
_LINES, _WIDTH = 8192, 248


class Faults:
    """The page of memory by which faults.c is told what to do, and tells what was called."""

    def __init__(self, fleet: Fleet) -> None:
        directory = fleet.paths.etc
        library, file = directory / "faults.so", directory / "faults"
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        file.write_bytes(bytes(_HEAD.size + _LINES * _WIDTH))
        with file.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), 0)
        self.variables = {
            "LD_PRELOAD": str(library), "FAULTS_FILE": str(file), "FAULTS_MARK": fleet.prefix.removesuffix("-"),
        }  # fmt: skip
        """What the daemon's environment needs."""

    def arm(self, nth: int = 0, error: int = 0, *, lasting: bool = False) -> None:
        """Count calls from now on. The ``nth`` fails, if that is not 0, and with ``lasting`` all later ones that may give
        this error, too."""
        bits = sum(1 << number for number, kind in enumerate(KINDS) if error in ERRORS[kind])
        self.disarm()
        self._memory[: _HEAD.size] = _HEAD.pack(1, nth, lasting, error, bits, 0, 0, 0)

    def disarm(self) -> None:
        """Let all calls be, as they would be without this library."""
        self._memory[:4] = bytes(4)

    def pause(self) -> bytes:
        """Let all calls be for a while; returns what ``resume`` needs."""
        armed = self._memory[: _HEAD.size]
        self.disarm()
        return armed

    def resume(self, armed: bytes) -> None:
        """Go on as before ``pause``."""
        self._memory[: _HEAD.size] = armed

    @property
    def failed(self) -> int:
        """How many calls failed since the last ``arm``."""
        return int(_HEAD.unpack_from(self._memory)[6])

    def calls(self) -> list[str]:
        """The calls since the last ``arm``: number, process (with ' a fork of it), kind, path."""
        taken = min(_HEAD.unpack_from(self._memory)[7], _LINES)
        places = (_HEAD.size + number * _WIDTH for number in range(taken))
        return [self._memory[at : at + _WIDTH].split(b"\0")[0].decode(errors="replace") for at in places]


@dataclass(frozen=True)
class Fault:
    """Which call of a scenario fails, and how. ``kind`` was that of the call when nothing failed."""

    scenario: str
    nth: int
    kind: str
    error: int
    lasting: bool

    def __str__(self) -> str:
        return f"{self.scenario}-{self.nth}-{self.kind}-{errno.errorcode[self.error]}{'-lasting' * self.lasting}"


class Stage:
    """A fleet whose daemon's calls can fail: a container ``a``, on which all is tried, and a witness that must run on."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.faults = Faults(fleet)
        fleet.settings(f"{fleet.usual}alive_time: 0\n")  # a rollout waits for nothing but what it does
        self.name: str = fleet.name("a")
        self.witness: str = fleet.name("w")
        self.start_daemon()
        self.bring(self.witness, "running")
        self.marked = False
        """Whether the container has the file ``mark`` now, which must be kept."""
        self._witness_pid = fleet.pid(self.witness)
        self._log_seen = 0

    @property
    def client(self) -> Client:
        """A client of the API."""
        return Client(self.fleet.paths, timeout=max(60.0, 60 * PATIENCE))

    def start_daemon(self, *, may_die: bool = False) -> None:
        """Start a daemon with the library of faults."""
        self.fleet.start_daemon(may_die=may_die, **self.faults.variables)

    # -- what is done ------------------------------------------------------------------------------------------------

    def act(self, action: Action, name: str = "") -> list[str]:
        """Do one action to the end; returns the errors that were told."""
        snapshots = action is Action.DESTROY
        request = ActionRequest(
            action, Selection(patterns=(name or self.name,)), force=True, timeout=2, with_snapshots=snapshots
        )
        return self._follow(self.client.act(request)["id"])

    def create(self, name: str = "", network: str = "none") -> list[str]:
        """Create the container; returns the errors that were told."""
        request = CreateRequest(name or self.name, said={"command": ("sleep", "infinity"), "network": network})
        return self._follow(self.client.create(request)["id"])

    def followed(self) -> list[str]:
        """Follow the rollout to its end; returns the errors that were told."""
        for end in self.client.rollout_follow():
            if "an error to pass" in end["waits_for"]:  # that is told; it goes on by itself once the disk is well
                self.faults.disarm()
        if end["status"] == "done":
            return [each["note"] for each in end["containers"] if each["phase"] != "done"]
        return [str(end["halted"])]

    def _follow(self, operation: str) -> list[str]:
        *_, end = self.client.follow(operation)
        return [str(result["error"]["message"]) + str(result["error"]) for result in end["results"] if result["error"]]  # type: ignore[typeddict-item]

    def bring(self, name: str, state: str) -> None:
        """Bring a container to a state by whatever takes it there; there must be no fault now."""
        now = self.fleet.states().get(name, "absent")
        if now == state:
            return
        if state == "absent":
            said = self.free(lambda: self.act(Action.DESTROY, name))
        elif now == "absent":
            said = self.create(name)
        else:
            said = self.free(lambda: self.act(Action.STOP if state == "stopped" else Action.START, name))
        assert not said, (state, now, said)
        assert self.fleet.states().get(name, "absent") in (state, "running")
        self.bring(name, state)

    @staticmethod
    def free(work: Callable[[], list[str]]) -> list[str]:
        """What ``work`` said once nothing kept it from that which the daemon does by itself: a start that failed is tried
        again at any moment."""
        said: list[str] = []

        def was_free() -> bool:
            said[:] = work()
            return not any("is busy" in text for text in said)

        until(was_free, what="nothing is under way")
        return said

    # -- what is so --------------------------------------------------------------------------------------------------

    def kernel(self, name: str) -> str:
        """The state of a container as the disk and the kernel show it, without a question to the daemon. broken: its removal
        is not complete."""
        if processes_in(name) or any(line == f"[lxc monitor] {self.fleet.paths.lxc} {name}" for _, line in command_lines()):
            return "running"
        if self.fleet.paths.container(name).spec.exists():
            return "stopped"
        return "broken" if any(self.fleet.paths.lxc.glob(f"{Paths.GONE_PREFIX}{name}.*")) else "absent"

    def told(self, name: str) -> str:
        """Whether a container is there and runs, as the daemon tells it. failed: it does not run, and how it ended could not
        be noted, so it may look as if it had ended by itself. backoff: its start failed, and is tried again."""
        told = self.fleet.states().get(name, "absent")
        return "stopped" if told in ("failed", "backoff") else told

    def agreed(self, name: str) -> str:
        """The state on which daemon and kernel agree, within a moment; fails if they don't."""
        def same() -> str:
            told = self.told(name)
            return told if told == self.kernel(name) else ""

        return str(until(same, 10, f"{name}: told {self.told(name)}, is {self.kernel(name)}"))

    def check(self, fault: Fault, scenario: Scenario, said: list[str]) -> None:
        """Check what must hold after a fault, with the answer that was given; then that a second try works."""
        state = self.agreed(self.name)
        if said:
            ends = {scenario.before, scenario.after}
            assert state in ends | {"stopped"} or (state == "broken" and "absent" in ends), (state, said)
        else:
            assert state == scenario.after, state
        for text in said:
            assert not [word for word in DEFECTS if word in text], text
        if fault.scenario != "reconcile":
            log = self.fleet.log()
            fresh, self._log_seen = log[self._log_seen :], len(log)
            assert not [word for word in DEFECTS if word in fresh], fresh
        self.kept(state)
        if said:
            until(lambda: not any(record["busy"] for record in self.fleet.records()), 10, "nothing is under way")
            if self.told(self.name) == scenario.before:
                scenario.ready(self)
                again = self.free(lambda: self.attempt(scenario))
                assert not again, again
            self.bring(self.name, scenario.after)
        until(lambda: self.agreed(self.name) == scenario.after, 10, "the second try works")
        self.kept(scenario.after)
        if fault.lasting and (scenario.left(self) or self.left(new=False)):
            self.fleet.stop_daemon()  # what could not be removed then has a name by which the next daemon knows it
            self.start_daemon()
        # A disk that refuses all writes keeps the file that was to take another's place: its next write replaces it.
        until(lambda: not scenario.left(self), 20, f"left: {scenario.left(self)}")
        until(lambda: not self.left(new=not fault.lasting), 20, f"left: {self.left()}")

    def kept(self, state: str) -> None:
        """Check that the containers' content is still there."""
        assert self.fleet.pid(self.witness) == self._witness_pid
        assert alive(self._witness_pid)
        if state != "absent" and self.marked:
            assert self.mark.read_text() == "kept", state

    def left(self, *, new: bool = True) -> list[str]:
        """What nobody owns. ``new``: with files that were to take the place of others."""
        names = self.fleet.states()
        ours = [self.fleet.paths.container(name).directory for name in names]
        mine = {*ours, self.fleet.paths.snapshots}
        odd = [*self.fleet.half_done(), *(d for d in self.fleet.directories() if Path(d) not in mine)]
        odd += [str(path) for directory in ours for path in directory.glob(".*.new") if new]
        if names.get(self.name) in (None, "stopped"):
            odd += map(str, cgroups_of(self.name))
        odd += [m for m in self.fleet.mounts() if "/mask" not in m]
        return odd

    @property
    def mark(self) -> Path:
        """A file of the container's own."""
        return self.fleet.delta(self.name) / "precious"

    def try_one(self, fault: Fault) -> bool:
        """One trial; returns whether the call came at all."""
        scenario = SCENARIOS[fault.scenario]
        self.bring(self.name, scenario.before)
        scenario.ready(self)
        self.marked = scenario.before != "absent"
        if self.marked:
            self.mark.write_text("kept")
        self.faults.arm(fault.nth, fault.error, lasting=fault.lasting)
        try:
            said = self.attempt(scenario)
        finally:
            happened = self.faults.failed
            self.faults.disarm()
        if scenario.after == "absent":
            self.marked = False
        self.check(fault, scenario, said)
        return happened > 0

    def recover(self) -> None:
        """Begin anew after a trial that failed, whatever it left."""
        if self.fleet.daemon_pid() is None:
            self.start_daemon()
        self.fleet.run("destroy", "--all", "--force", "--with-snapshots", "-q")
        self.fleet.stop_daemon(signal.SIGKILL)
        self.start_daemon()
        self.bring(self.witness, "running")
        self._witness_pid = self.fleet.pid(self.witness)
        self._log_seen = len(self.fleet.log())

    def attempt(self, scenario: Scenario) -> list[str]:
        """Do what the scenario does; returns the errors that were told."""
        try:
            return scenario.act(self)
        except FleetError as error:  # refused before it was begun
            return [str(error)]

    def count(self, name: str) -> list[tuple[str, str]]:
        """The kind and the path of each call of a scenario in which nothing fails."""
        scenario = SCENARIOS[name]
        self.bring(self.name, scenario.before)
        scenario.ready(self)
        self.faults.arm()
        said = scenario.act(self)
        self.faults.disarm()
        assert not said, said
        return [(line.split()[2], line.partition(line.split()[2])[2]) for line in self.faults.calls()]

    def all_faults(self, name: str) -> Iterator[Fault]:
        """Each call of a scenario with each of its errors."""
        for number, (kind, _) in enumerate(self.count(name), 1):
            yield from _faults(name, number, kind)

    def first_faults(self, name: str) -> list[Fault]:
        """The first call of a scenario with each of its errors, once: the same in each run."""
        kind, _ = self.count(name)[0]
        return [fault for fault in _faults(name, 1, kind) if not fault.lasting]

    def some_faults(self, name: str, count: int, seed: int) -> list[Fault]:
        """So many of all faults."""
        every = [fault for number, (kind, _) in enumerate(self.count(name), 1) for fault in _faults(name, number, kind)]
        return random.Random(seed).choices(every, k=count)


def _faults(name: str, number: int, kind: str) -> Iterator[Fault]:
    for error in ERRORS[kind]:
        yield Fault(name, number, kind, error, lasting=False)
        if error in LASTING:
            yield Fault(name, number, kind, error, lasting=True)


def _set(stage: Stage) -> list[str]:
    """Change one value that takes effect at once, and one that needs a restart."""
    before = stage.fleet.record(stage.name)["labels"].get("turn", "0")
    turn = str(int(before) + 1)
    chosen = Selection(patterns=(stage.name,))
    stage.client.set(SetRequest(chosen, (f"labels.turn={turn}", f"pids={300 + int(turn)}"), restart=False))
    assert stage.fleet.record(stage.name)["labels"]["turn"] == turn
    return []


def _rollout(stage: Stage) -> list[str]:
    """Restart all containers by a rollout; one that halted or stands is broken off first."""
    last = stage.client.rollout()
    if last is not None and last["status"] not in ("done", "aborted"):
        stage.client.rollout_abort()
    policy = {"min_healthy_time": 0, "healthy_deadline": 5}
    stage.client.roll(RolloutRequest("restart", Selection(patterns=(stage.name,)), policy))
    return stage.followed()


def _mask(stage: Stage) -> list[str]:
    """Restart with a mask that has to be built anew."""
    rules = stage.fleet.paths.mask_rules / "trial.yaml"
    rules.parent.mkdir(exist_ok=True)
    rules.write_text(f"hide: [/usr/share/no-{time.monotonic_ns()}]\n")
    return stage.act(Action.RESTART)


def _reconcile(stage: Stage) -> list[str]:
    """Start a daemon that finds a container which is to run, and does not."""
    armed = stage.faults.pause()
    fleet, own = stage.fleet, stage.fleet.paths.container(stage.name)
    fleet.stop_daemon(signal.SIGKILL)
    own.pending.write_text("start\n")
    stage.faults.resume(armed)
    stage.start_daemon(may_die=True)
    if fleet.daemon_pid() is None:
        stage.faults.disarm()
        said = fleet.log()[-500:]
        assert "lxcfleetd: " in said
        stage.start_daemon()
        return [said]
    until(lambda: not any(record["busy"] for record in fleet.records()), 30, "the daemon is done")
    return [] if stage.told(stage.name) == "running" else ["it was not started"]


SCENARIOS: dict[str, Scenario] = {
    "create": Scenario("absent", "running", lambda stage: stage.create()),
    "connect": Scenario("absent", "running", lambda stage: stage.create(network="bridge")),
    "start": Scenario("stopped", "running", lambda stage: stage.act(Action.START)),
    "restart": Scenario("running", "running", lambda stage: stage.act(Action.RESTART)),
    "stop": Scenario("running", "stopped", lambda stage: stage.act(Action.STOP)),
    "destroy": Scenario("running", "absent", lambda stage: stage.act(Action.DESTROY)),
    "set": Scenario("running", "running", _set),
    "rollout": Scenario("running", "running", _rollout),
    "mask": Scenario("running", "running", _mask),
    "reconcile": Scenario("stopped", "running", _reconcile),
    **VERBS,
}


# -- all of them, as a program ---------------------------------------------------------------------------------------


def _trials(stage: Stage, names: Sequence[str], some: int, seed: int) -> Iterator[Fault]:
    for name in names:
        chosen = stage.some_faults(name, some, seed) if some else list(stage.all_faults(name))
        print(f"{name}: {len(chosen)} trials", flush=True)
        yield from chosen


def main() -> int:
    """Try all, or some; prints each that failed. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.faults", description=__doc__.partition("\n")[0])
    parser.add_argument("--some", type=int, default=0, help="only so many trials of each scenario, by chance; 0: all")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further trial after this time")
    parser.add_argument("--one", help="one trial by its name, such as start-12-rename-EIO")
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; all by default")
    said = parser.parse_args()
    deadline = time.monotonic() + said.seconds
    failures = tried = 0
    leftovers.begin()
    fleet = Fleet()
    try:
        stage = Stage(fleet)
        trials = [_named(said.one)] if said.one else _trials(stage, said.scenarios or list(SCENARIOS), said.some, said.seed)
        for fault in trials:
            if time.monotonic() > deadline:
                break
            tried += 1
            try:
                stage.try_one(fault)
            except Exception as error:  # each trial is to be told of
                failures += 1
                stage.faults.disarm()
                print(f"FAILED {fault}: {type(error).__name__}: {error}", flush=True)
                print("    ", *[line for line in stage.faults.calls() if "FAILED" in line][:3], sep="\n    ", flush=True)
                stage.recover()
            if said.one:
                print("\n".join(stage.faults.calls()), fleet.log()[-3000:], sep="\n")
    finally:
        with contextlib.suppress(Exception):
            fleet.run("destroy", "--all", "--force", "--with-snapshots", "-q")
        fleet.remove()
        leftovers.end()
    print(f"{tried} trials, {failures} failed")
    return 1 if failures else 0


def _named(text: str) -> Fault:
    scenario, number, kind, error, *rest = text.split("-")
    return Fault(scenario, int(number), kind, getattr(errno, error), lasting=bool(rest))


if __name__ == "__main__":
    sys.exit(main())
