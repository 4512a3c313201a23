"""Random interleavings of stops, deaths and kills of the daemon: what is to run runs in the end, what was stopped is down.

Each container has a thread that does a few things to it, one after the other, while the daemon is killed and started again.
After each round all must be as the answers said; then the next round begins.

    /usr/bin/python3 -m tests.system.history --interleavings 1000      # part of `make endurance`
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from threading import Thread

from lxcfleet.api.client import BrokenOff, Client
from lxcfleet.api.requests import ActionRequest
from lxcfleet.errors import FleetError, Unreachable
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action

from .harness import PATIENCE, Fleet, processes_in, until

POLICIES = ("always", "unless-stopped", "on-failure")
PAUSES = "delay=0.1 max_delay=0.4"
"""Short pauses between starts."""
COMMAND = ("sh", "-c", 'trap "exit 0" USR1; trap "exit 3" USR2; while :; do sleep 1000 & wait; done')
"""It ends with 0 or 3 when it is told to."""
HOLDS_SECONDS = 0.8
"""For so long all must stay as it should be: longer than the longest pause."""
SETTLE_SECONDS = 60.0
MEANWHILE_SECONDS = 10.0
"""For so long after an end its monitor may still tidy up: lxc-stop then says that nothing ran."""
RUNS, DOWN = frozenset({"runs"}), frozenset({"down"})
EITHER = RUNS | DOWN
"""An answer was broken off, so nobody knows whether it was done."""


@dataclass
class Kept:
    """A container with a restart policy, and how it must be in the end."""

    name: str
    policy: str
    must: frozenset[str] = RUNS
    ended: float = float("-inf")
    """When its program was last ended."""
    story: list[str] = field(default_factory=list)
    """What was done to it in this round, for the report of a failure."""

    @property
    def fits(self) -> bool:
        """Whether the kernel shows it as it must be."""
        return ("runs" if processes_in(self.name) else "down") in self.must


class Interleavings:
    """Rounds of random acts on containers with policies."""

    def __init__(self, fleet: Fleet, seed: int, each: int = 2) -> None:
        self.fleet, self.seed, self.done = fleet, seed, 0
        self._chance = random.Random(seed)
        self.kept = [Kept(fleet.name(f"{policy[0]}{n}"), policy) for policy in POLICIES for n in range(each)]
        self._wrong: list[str] = []

    def run(self, rounds: int) -> None:
        """Do so many rounds. Raises AssertionError if a container is not as it must be."""
        for each in self.kept:
            self.fleet.create(each.name, command=("--", *COMMAND), options=("--restart", f"{each.policy} {PAUSES}"))
        for _ in range(rounds):
            self._round()

    def _round(self) -> None:
        works: list[Callable[[random.Random], None]] = [partial(self._acts, each) for each in self.kept]
        works += [self._kills] if self._chance.random() < 0.8 else []
        threads = [Thread(target=self._guarded, args=(work, random.Random(self._chance.random()))) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not self._wrong, f"seed {self.seed}, after {self.done}: {self._wrong}"
        for each in self.kept:
            with contextlib.suppress(AssertionError):  # what it is like instead is told below
                until(partial(self._is_right, each), SETTLE_SECONDS)
        deadline = time.monotonic() + HOLDS_SECONDS
        while time.monotonic() < deadline:
            wrong = [each for each in self.kept if not self._is_right(each)]
            told = [f"{each.name} ({each.policy}): {each.story}, so {set(each.must)}; {self._told(each)}" for each in wrong]
            assert not wrong, f"seed {self.seed}, after {self.done}: " + "; ".join(told)
            time.sleep(0.1)
        for each in self.kept:
            each.must = RUNS if processes_in(each.name) else DOWN
            each.ended = float("-inf")
            each.story.clear()
        self.done += len(self.kept)

    def _guarded(self, work: Callable[[random.Random], None], chance: random.Random) -> None:
        try:
            work(chance)
        except Exception as error:  # it is told by the thread that waits for this one
            self._wrong.append(f"{type(error).__name__}: {error}")

    def _kills(self, chance: random.Random) -> None:
        """Kill the daemon at a random moment, and start another one at once or a while later; perhaps twice."""
        for _ in range(chance.choice((1, 1, 2))):
            time.sleep(chance.uniform(0.0, 1.0))
            self.fleet.stop_daemon(signal.SIGKILL)
            time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.8))))
            self.fleet.start_daemon()

    # -- what is done to a container -------------------------------------------------------------------------

    def _acts(self, kept: Kept, chance: random.Random) -> None:
        acts = {"start": self._ask, "stop": self._ask, "restart": self._ask, "lxc-stop": self._lxc_stop,
                "kill": self._end, "exit 0": self._end, "exit 3": self._end}  # fmt: skip
        weights = (3, 2, 1, 2, 3, 2, 2)
        for word in chance.choices(list(acts), weights, k=chance.randint(1, 4)):
            time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.3))))
            outcome = acts[word](kept, word)
            kept.story.append(f"{time.monotonic():.2f} {word} -> {outcome}")

    def _ask(self, kept: Kept, word: str) -> str:
        """Have the daemon do it. What was done counts; what was refused changes nothing; else nobody knows."""
        client = Client(self.fleet.paths, timeout=60 * PATIENCE)
        after = DOWN if word == "stop" else RUNS
        try:
            request = ActionRequest(Action(word), Selection(patterns=(kept.name,)), timeout=2)
            *_, end = client.follow(client.act(request)["id"])
            (result,) = end["results"]  # type: ignore[typeddict-item]
        except (Unreachable, BrokenOff) as error:
            kept.must |= after
            return type(error).__name__
        except FleetError as error:
            return error.code
        if not result["error"]:
            kept.must = after
        elif result["error"]["code"] not in ("busy", "wrong-state"):
            raise AssertionError(f"{word} of {kept.name}: {result}")
        elif result["error"]["code"] == "wrong-state":  # it was started, and had ended a moment later
            kept.must = EITHER if kept.policy == "on-failure" else after
        return result["status"] + (f" ({result['error']['code']})" if result["error"] else "")

    def _lxc_stop(self, kept: Kept, _: str) -> str:
        """Have LXC stop it. It says whether it did."""
        argv, began = ["lxc-stop", "-P", str(self.fleet.paths.lxc), "-n", kept.name, "-t", "2"], time.monotonic()
        status = subprocess.run(argv, capture_output=True, timeout=60 * PATIENCE, check=False).returncode
        if status == 0:
            kept.must = DOWN
        elif began < kept.ended + MEANWHILE_SECONDS:
            kept.must |= DOWN  # it had just ended by itself, and somebody wanted it down
        return str(status)

    def _end(self, kept: Kept, word: str) -> str:
        """End its program: by a kill, or by its own will."""
        number = {"kill": signal.SIGKILL, "exit 0": signal.SIGUSR1, "exit 3": signal.SIGUSR2}[word]
        pids = processes_in(kept.name)
        if word != "kill":
            pids = [pid for pid in pids if _runs_shell(pid)]
        if not pids:
            return "not there"
        if word == "exit 0" and kept.policy == "on-failure":
            kept.must |= DOWN  # a daemon that was not there does not know with which status it ended
        kept.ended = time.monotonic()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return f"{pids}"

    # -- what is told of it ----------------------------------------------------------------------------------

    def _told(self, kept: Kept) -> str:
        try:
            record = Client(self.fleet.paths, timeout=30 * PATIENCE).info(kept.name)
        except FleetError as error:
            return str(error)
        return f"state {record['state']}, busy {record['busy']}, exit {record['exit']}, has {processes_in(kept.name)}"

    def _is_right(self, kept: Kept) -> bool:
        """Whether it is as it must be, and the daemon tells the same and does nothing to it any more."""
        if not kept.fits:
            return False
        try:
            record = Client(self.fleet.paths, timeout=30 * PATIENCE).info(kept.name)
        except FleetError:
            return False
        runs = bool(processes_in(kept.name))
        return not record["busy"] and (record["state"] == "running") == runs and record["state"] != "backoff"


def _runs_shell(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read() == b"sh\n"
    except OSError:
        return False
