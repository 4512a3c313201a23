"""A random history: clients change containers while processes are killed, and each answer is held against what is so.

Each client has containers of its own, so it knows what must be true of them after each answer. Meanwhile the daemon, its
launcher, its booter, monitors and containers' processes are killed, alone and together. A new daemon is started at once.

    /usr/bin/python3 -m tests.system.history [--kills N] [--interleavings N] [--statuses] [--seed N]     # `make endurance`

Without a choice: 10,000 kills, 1,000 interleavings of ends and kills under restart policies, and every exit status once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import leftovers

from lxcfleet.api.client import BrokenOff, Client
from lxcfleet.api.requests import ActionRequest, CreateRequest
from lxcfleet.errors import FleetError, Unreachable
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

from . import harness, statuses
from .harness import PATIENCE, Fleet, command_lines, processes_in, until
from .policies import Interleavings

RESTS = {"stopped", "failed", "exited"}
"""States of a container that has no process."""

SETTLE_SECONDS = 150.0
"""How long it may take until the daemon tells what is so, after a kill: its successor starts first."""


LATE_SECONDS = 10.0
"""For so long after a kill a daemon on a busy machine may tell what was before; then it has to tell what is so soon."""


class Untrue(AssertionError):
    """An answer that was not so."""


@dataclass
class Subject:
    """A container, and what its one client knows about it."""

    name: str
    there: bool = False
    kept: str = ""
    """What was last written to its delta by the client."""
    doomed: bool = False
    """Whether its destruction was asked for, and nothing was answered that says that it stays."""
    killed: float = float("-inf")
    """When its processes were last killed: for a moment it may have ended, whatever is answered."""

    def seen(self, there: bool) -> None:
        """It is there, or not any more. Raises Untrue if it is gone and nobody asked for that."""
        if not there:
            if self.kept and not self.doomed:
                raise Untrue(f"{self.name} is gone, with its content, though nobody destroyed it")
            self.kept, self.doomed = "", False
        self.there = there

    def killed_since(self, began: float) -> bool:
        """Whether it was killed after that moment, or so shortly before that the daemon may not have seen it."""
        return self.killed > began - PATIENCE


class History:
    """Clients, killers, and what they saw."""

    def __init__(self, fleet: Fleet, seed: int, clients: int = 3, each: int = 2) -> None:
        self.fleet, self.seed = fleet, seed
        self.subjects = [[Subject(fleet.name(f"{c}{n}")) for n in range(each)] for c in range(clients)]
        self.answers = self.failed = self.unknown = self.kills = 0
        self._ending, self._over = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._wrong: list[str] = []

    # -- running it --------------------------------------------------------------------------------------------------

    def run(self, kills: int, pause: float = 0.4) -> None:
        """Go on until so many kills were made, then see that all is in order. Raises Untrue."""
        works = [(self._client, number) for number in range(len(self.subjects))] + [(self._keep_daemon, 0)]
        threads = [threading.Thread(target=self._guarded, args=work) for work in works]
        for thread in threads:
            thread.start()
        chance = random.Random(self.seed)
        try:
            while self.kills < kills and not self._wrong:
                self._let_be(chance)
                time.sleep(chance.uniform(0.0, 2.0) * pause)
                self._kill(chance)
        finally:
            self._ending.set()
            try:
                for thread in threads[:-1]:
                    thread.join()
            finally:
                self._over.set()  # until the clients are done, they need a daemon
                threads[-1].join()
        if self._wrong:
            raise Untrue(f"seed {self.seed}, after {self.kills} kills: " + "; ".join(self._wrong))
        self._settled()

    def _let_be(self, chance: random.Random) -> None:
        """Wait until a daemon answers, and mostly until a client had an answer of it; a slow machine needs its time."""
        draw, heard = chance.random(), self.answers
        with contextlib.suppress(AssertionError):
            if draw < 0.85:  # else it may be killed while it starts
                until(lambda: self.fleet.daemon_pid() is not None or self._wrong, 30)
            if draw < 0.6:
                until(lambda: self.answers > heard or self._wrong, 15)

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except Exception as error:  # it is told by the thread that waits for this one
            self._wrong.append(f"{type(error).__name__}: {error}")

    def _keep_daemon(self, _: int) -> None:
        while not self._over.is_set():
            self.fleet.reap()
            if not self.fleet.daemons:
                with contextlib.suppress(AssertionError):  # it may be slow: it waits for what worked for the one before
                    self.fleet.start_daemon(may_die=True)
            time.sleep(0.05)

    # -- kills -------------------------------------------------------------------------------------------------------

    def _kill(self, chance: random.Random) -> None:
        """Kill one process of lxcfleet's or of a container's, or several at once."""
        own = {"daemon": self.fleet.daemon_pid(), **self.fleet.servants()}
        subject = chance.choice([each for group in self.subjects for each in group])
        kind = chance.choice(["daemon", "launcher", "booter", "monitor", "init", "ours", "daemon+monitor", "all"])
        victims = [pid for word, pid in own.items() if pid and (word == kind or kind in ("ours", "all"))]
        if kind == "daemon+monitor":
            victims += [pid for pid in [own["daemon"]] if pid]
        if kind in ("monitor", "init", "daemon+monitor", "all"):
            subject.killed = time.monotonic()  # noted before it is done
            title = f"[lxc monitor] {self.fleet.paths.lxc} {subject.name}"
            monitors = [pid for pid, line in command_lines() if line == title]
            victims += processes_in(subject.name) if kind == "init" else monitors
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.kills += bool(victims)

    # -- clients -----------------------------------------------------------------------------------------------------

    def _client(self, number: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        while not self._ending.is_set() and not self._wrong:
            subject = chance.choice(self.subjects[number])
            word = chance.choice(["start", "stop", "restart", "destroy", "look", "look"]) if subject.there else "create"
            try:
                self._look(subject) if word == "look" else self._act(subject, word)
            except (Unreachable, BrokenOff):
                self._count("unknown")
                self._find_out(subject)

    def _act(self, subject: Subject, word: str) -> None:
        """Do one action, and hold the answer against what is so."""
        subject.doomed = subject.doomed or word == "destroy"
        before, began = processes_in(subject.name), time.monotonic()
        client = Client(self.fleet.paths, timeout=60 * PATIENCE)
        try:
            if word == "create":
                request = CreateRequest(subject.name, said={"command": ("sleep", "infinity")})
                operation = client.create(request)["id"]
            else:
                action = ActionRequest(Action(word), Selection(patterns=(subject.name,)), timeout=2, force=True)
                operation = client.act(action)["id"]
            *_, end = client.follow(operation)
            (result,) = end["results"]  # type: ignore[typeddict-item]
        except (Unreachable, BrokenOff):
            raise
        except FleetError as error:
            self._refused(subject, word, error)
            return
        if result["error"]:
            self._count("failed")
            self._find_out(subject)
            return
        self._count("answers")
        self._hold(subject, word, before, killed=subject.killed_since(began), changed=result["changed"])

    def _hold(self, subject: Subject, word: str, before: list[int], *, killed: bool, changed: bool) -> None:
        """Raise Untrue if the action was not done, as was answered."""
        now = processes_in(subject.name)
        exists = self.fleet.paths.container(subject.name).spec.exists()
        if word == "destroy":
            self._demand(not now and not exists, f"{subject.name} was told to be destroyed; {now} are in it, {exists=}")
            subject.seen(False)
            return
        self._demand(exists, f"{word} of {subject.name} was told to be done, and there is no such container")
        if word == "stop":
            self._demand(not now, f"{subject.name} was told to be stopped; {now} are in it")
        elif not killed:
            # Of one that was killed just before, the daemon may not have seen the end: to it there was nothing to do.
            told = f"{word} of {subject.name} was told to be done; nothing runs"
            self._demand(bool(now), told) if changed else self._demand_soon(subject, bool(now), told)
            if word == "restart":
                self._demand(not set(now) & set(before), f"{subject.name} was told to be restarted; {before} are still there")
        subject.seen(True)
        subject.doomed = False
        self._check_content(subject)

    def _refused(self, subject: Subject, word: str, error: FleetError) -> None:
        """What the daemon did not begin."""
        self._count("failed")
        known = {"busy", "not-found", "already-exists", "wrong-state", "host-error", "broken", "cancelled"}
        self._demand(error.code in known, f"{word} of {subject.name}: {error.code}: {error}")
        self._find_out(subject)

    def _look(self, subject: Subject) -> None:
        """Ask for one container: the pid that is told must be its own."""
        began = time.monotonic()
        try:
            record = Client(self.fleet.paths, timeout=60 * PATIENCE).info(subject.name)
        except (Unreachable, BrokenOff):
            raise
        except FleetError as error:
            self._demand(not self.fleet.paths.container(subject.name).spec.exists(), f"info {subject.name}: {error}")
            subject.seen(False)
            return
        self._count("answers")
        now = processes_in(subject.name)
        if not subject.killed_since(began) and record["state"] in ("running", "stopped"):
            running = record["state"] == "running"
            true = record["pid"] in now if running else not now
            self._demand_soon(subject, true, f"{subject.name} is told as {record['state']}; {now} are in it")

    def _find_out(self, subject: Subject) -> None:
        """After an answer that says nothing: wait until the daemon tells what is so."""
        deadline = time.monotonic() + SETTLE_SECONDS * PATIENCE
        problem = "never answered"
        while time.monotonic() < deadline:
            with contextlib.suppress(FleetError, OSError, ValueError):
                problem = self._difference(subject)
                if not problem:
                    subject.seen(self.fleet.paths.container(subject.name).spec.exists())
                    return
            time.sleep(0.1)
        raise Untrue(f"{subject.name}: {problem}")

    def _difference(self, subject: Subject) -> str:
        """What the daemon tells of a container that is not so; empty: all is."""
        records = Client(self.fleet.paths, timeout=10 * PATIENCE).containers(Selection())
        told = {record["name"]: record for record in records}.get(subject.name)
        now = processes_in(subject.name)
        if told is None:
            left = [path for path in self.fleet.paths.lxc.glob(f"*{subject.name}*")]
            return f"told to be absent, with {now} and {left}" if now or left else ""
        if told["busy"]:
            return f"busy: {told['busy']}"
        if told["state"] in RESTS:
            return f"told as {told['state']}, with {now}" if now else ""
        return "" if told["pid"] in now else f"told as {told['state']}, with {told['pid']}; has {now}"

    def _check_content(self, subject: Subject) -> None:
        """The content of the delta must be what was written; then something new is written."""
        file = self.fleet.delta(subject.name) / "history"
        found = file.read_text() if file.exists() else ""
        self._demand(found == subject.kept, f"{subject.name} had {subject.kept!r} in its delta, and has {found!r}")
        subject.kept = f"{time.monotonic_ns()}"
        file.write_text(subject.kept)

    def _demand(self, true: bool, otherwise: str) -> None:
        if not true:
            raise Untrue(otherwise)

    def _demand_soon(self, subject: Subject, true: bool, otherwise: str) -> None:
        """The same, but for a container of which something was killed lately: what is told of it has to be so soon."""
        if not true and time.monotonic() < subject.killed + LATE_SECONDS * PATIENCE:
            self._find_out(subject)
        else:
            self._demand(true, otherwise)

    def _count(self, word: str) -> None:
        with self._lock:
            setattr(self, word, getattr(self, word) + 1)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _settled(self) -> None:
        """After all: daemon and kernel agree, and nothing is left that nobody owns."""
        if self.fleet.daemon_pid() is None:
            self.fleet.reap()
            self.fleet.start_daemon()
        subjects = [each for group in self.subjects for each in group]
        for subject in subjects:
            self._find_out(subject)
        until(lambda: not self.fleet.half_done(), SETTLE_SECONDS, f"nothing is half done: {self.fleet.half_done()}")
        for subject in subjects:
            if self.fleet.paths.container(subject.name).spec.exists() and subject.kept:
                found = (self.fleet.delta(subject.name) / "history").read_text()
                self._demand(found == subject.kept, f"{subject.name} had {subject.kept!r} in its delta, and has {found!r}")
        log = self.fleet.log()
        self._demand("unexpectedly" not in log, log[-3000:])


@contextlib.contextmanager
def a_fleet() -> Iterator[Fleet]:
    """A fleet for a run as a program."""
    leftovers.begin()
    fleet = Fleet()
    try:
        fleet.start_daemon()
        yield fleet
    except AssertionError:
        print(fleet.log()[-5000:], flush=True)
        raise
    finally:
        with contextlib.suppress(Exception):
            fleet.run("destroy", "--all", "--force", "-q")
        fleet.remove()
        leftovers.end()
        harness.clients.cache_clear()  # it was ended as a process of this run


def main() -> int:
    """Run histories of some hundred kills each, until there were enough. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.history", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=0, help="how many in all")
    parser.add_argument("--interleavings", type=int, default=0, help="how many of ends and kills under restart policies")
    parser.add_argument("--statuses", action="store_true", help="whether every exit status and signal is tried")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="that of the first history")
    said = parser.parse_args()
    if not (said.kills or said.interleavings or said.statuses):
        said.kills, said.interleavings, said.statuses = 10_000, 1_000, True
    try:
        if said.statuses:
            _statuses()
        for work, much in ((_interleavings, said.interleavings), (_kills, said.kills)):
            seed, done = said.seed, 0
            while done < much:
                done += work(seed, much - done)
                seed += 1
    except AssertionError as error:
        print(f"FAILED {error}", flush=True)
        return 1
    return 0


def _statuses() -> None:
    with a_fleet() as fleet:
        statuses.check(fleet, statuses.EVERY)
    print(f"{len(statuses.EVERY)} exit statuses and signals, all told rightly", flush=True)


def _interleavings(seed: int, left: int) -> int:
    """Some of the interleavings that are left; returns how many."""
    with a_fleet() as fleet:
        acts = Interleavings(fleet, seed)
        acts.run(min(20, -(-left // len(acts.kept))))
    print(f"seed {seed}: {acts.done} interleavings, all as the answers said", flush=True)
    return acts.done


def _kills(seed: int, left: int) -> int:
    """Some of the kills that are left; returns how many."""
    with a_fleet() as fleet:
        history = History(fleet, seed)
        history.run(min(200, left))
    counts = f"{history.answers} answers held, {history.failed} said to have failed, {history.unknown} broken off"
    print(f"seed {seed}: {history.kills} kills, {counts}", flush=True)
    return max(history.kills, 1)


if __name__ == "__main__":
    sys.exit(main())
