"""A fleet in memory that behaves like the daemon's: containers, operations, events. No HTTP here."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from lxcfleet.api.findings import ExposureRecord, NoticeRecord, ProofRecord, ShadowsRecord, StaleRecord
from lxcfleet.api.records import (
    ContainerRecord,
    DoctorRecord,
    EventRecord,
    FindingRecord,
    OperationRecord,
    ResultRecord,
    RolloutMemberRecord,
    RolloutRecord,
    UsageRecord,
)
from lxcfleet.api.requests import ActionRequest, CreateRequest, RolloutRequest, WaitRequest
from lxcfleet.errors import (
    AlreadyExists,
    Broken,
    Busy,
    FleetError,
    InvalidInput,
    NoCapacity,
    NotFound,
    WrongState,
)
from lxcfleet.spec.merging import merge
from lxcfleet.spec.names import first, next_free
from lxcfleet.spec.rollout import RolloutSettings, overridden
from lxcfleet.spec.selection import Selection, natural_order
from lxcfleet.spec.settings import Config
from lxcfleet.spec.states import Action, State
from lxcfleet.spec.terms import RANGE_SIZE, Init

from .fake_containers import NOW, FakeContainer, FakeOperation, differences, done, failed

ROOM = 5000
"""How many containers fit; less than two requests of the largest size."""

_DONE = {
    Action.START: ("started", State.RUNNING, (State.STOPPED,)),
    Action.STOP: ("stopped", State.STOPPED, (State.RUNNING, State.FROZEN)),
    Action.RESTART: ("restarted", State.RUNNING, (State.RUNNING, State.FROZEN, State.STOPPED)),
    Action.FREEZE: ("frozen", State.FROZEN, (State.RUNNING,)),
    Action.UNFREEZE: ("unfrozen", State.RUNNING, (State.FROZEN,)),
}
"""Of each action: its word, the state it leads to, and the states that it changes."""


class FakeFleet:
    """What the daemon knows and does. Tests set ``fails``, ``during``, ``logs`` and the rest at will."""

    def __init__(self) -> None:
        self.containers: dict[str, FakeContainer] = {}
        self.operations: dict[str, FakeOperation] = {}
        self.events: list[EventRecord] = []
        self.logs: dict[tuple[str, str], bytes] = {}
        self.fails: dict[str, FleetError] = {}
        """What goes wrong with which container."""
        self.during: Callable[[str], object] = str
        """Called in the middle of the work on each container."""
        self.fixed = False
        self.rollout: RolloutRecord | None = None
        self.halts_at: str | None = None
        """The container whose gate fails."""
        self.notices = 0
        """How often it was told that the host's packages changed."""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def add(self, name: str, **fields: Any) -> FakeContainer:
        """A container that has always been there."""
        container = self.containers[name] = FakeContainer(name, **fields)
        return container

    def choose(self, selection: Selection) -> tuple[str, ...]:
        """The chosen names."""
        return selection.choose({name: each.labels for name, each in self.containers.items()})

    def get(self, name: str) -> FakeContainer:
        """The container of that name."""
        if name not in self.containers:
            raise NotFound(f"no container named {name}", hint="`lxcfleet list` shows the ones that exist")
        return self.containers[name]

    def operation(self, identity: str) -> FakeOperation:
        """The operation of that id."""
        if identity not in self.operations:
            raise NotFound(f"no operation {identity}")
        return self.operations[identity]

    def create(self, request: CreateRequest) -> OperationRecord:
        """Begin to create."""
        _check_create(request)
        with self._lock:
            names = self._new_names(request)
            new = [name for name in names if name not in self.containers]
            if len(self.containers) + len(new) > ROOM:
                raise NoCapacity(f"no room for {len(new)} more", why=f"keys: {ROOM} at most")
            if request.dry_run:
                record = self._planned("create", new, [name for name in names if name not in new])
                for result in record["results"]:
                    if result["name"] not in new and (differs := differences(self.containers[result["name"]], request)):
                        result["differs"] = differs
                return record
            for name in new:  # held from now on, so that no other request gets it
                self.containers[name] = _created(name, request)
        return self._begin("create", names, lambda name: self._create(name, name in new, request))

    def _new_names(self, request: CreateRequest) -> tuple[str, ...]:
        if request.count is None:
            assert request.name is not None
            names: tuple[str, ...] = (request.name,)
        elif request.ensure:
            names = first(request.name or "c", request.count)
        else:
            names = next_free(request.name or "c", request.count, self.containers)
        taken = [name for name in names if name in self.containers]
        if taken and not request.ensure:
            raise AlreadyExists(f"{taken[0]} exists", hint="choose another name, or --ensure")
        return names

    def _create(self, name: str, new: bool, request: CreateRequest) -> ResultRecord:
        container = self.containers[name]
        differs = {} if new else differences(container, request)
        if not new and (container.state is not State.STOPPED or not request.start):
            return done(name, "unchanged", changed=False, differs=differs)
        try:
            self._work(name)
        except FleetError:
            if new:
                del self.containers[name]
            raise
        container.state = State.RUNNING if request.start else State.STOPPED
        self._note("created" if new else "started", name)
        return done(name, "created" if new else "started", differs=differs)

    def act(self, request: ActionRequest) -> OperationRecord:
        """Begin an action."""
        names = self.choose(request.selection)
        if request.dry_run:
            state = _DONE[request.action][1] if request.action in _DONE else None
            same = [n for n in names if self.get(n).state is state and request.action is not Action.RESTART]
            return self._planned(request.action, [name for name in names if name not in same], same)
        return self._begin(request.action, names, lambda name: self._act(request, name))

    def _act(self, request: ActionRequest, name: str) -> ResultRecord:
        container = self.get(name)
        if request.action is Action.DESTROY:
            return self._destroy(container, request.force)
        if container.problem:
            raise Broken(f"{name} is broken", why=container.problem)
        word, state, from_states = _DONE[request.action]
        if container.state is state and state not in from_states:
            return done(name, "unchanged", changed=False)
        if container.state not in from_states:
            raise WrongState(f"{name} is {container.state}")
        self._work(name)
        container.state = state
        self._note(word, name)
        return done(name, word)

    def _destroy(self, container: FakeContainer, force: bool) -> ResultRecord:
        name = container.name
        if container.state.alive and not force:
            raise WrongState(f"{name} is {container.state}", hint="stop it first, or use --force")
        self._work(name)
        del self.containers[name]
        self._note("destroyed", name)
        return done(name, "destroyed")

    def _work(self, name: str) -> None:
        self.during(name)
        if name in self.fails:
            raise self.fails[name]

    def _begin(
        self, action: str, names: tuple[str, ...], work: Callable[[str], ResultRecord]
    ) -> OperationRecord:
        operation = FakeOperation(next(self._numbers), action, names)
        self.operations[operation.id] = operation
        record = operation.record()
        threading.Thread(target=operation.run, args=(work,), daemon=True).start()
        return record

    def _planned(self, action: str, names: list[str], same: list[str]) -> OperationRecord:
        operation = FakeOperation(next(self._numbers), action, (*names, *same))
        operation.status, operation.plan = "done", [f"{action} {name}" for name in names]
        operation.results = [done(name, "planned") for name in names]
        operation.results += [done(name, "unchanged", changed=False) for name in same]
        return operation.record()

    def wait(self, request: WaitRequest) -> list[ResultRecord]:
        """One result for each, once all are as asked or the time is up."""
        names = self.choose(request.selection)
        wanted = State.STOPPED if request.until == "stopped" else State.RUNNING
        reached = (State.STOPPED, State.BROKEN) if wanted is State.STOPPED else (wanted,)
        end = time.monotonic() + request.timeout
        while time.monotonic() < end and any(self.get(name).state not in (*reached, State.BROKEN) for name in names):
            time.sleep(0.01)
        late = WrongState(f"not {request.until} after {request.timeout:g} s")
        broken = Broken(f"not {request.until}, and can't become so", hint="restore its spec")
        return [
            done(name, request.until, changed=False)
            if self.get(name).state in reached
            else failed(name, broken if self.get(name).state is State.BROKEN else late)
            for name in names
        ]

    def doctor(self, count: int, init: Init) -> DoctorRecord:
        """What ``count`` more need."""
        fits = ROOM - len(self.containers)
        instances = 128 if not self.fixed else 65536
        need = 4 * count if init is Init.SYSTEM else 0
        return {
            "findings": [
                _finding("keys", "ok" if count <= fits else "fail", fits, count, False),
                _finding(
                    "inotify",
                    "ok" if need <= instances else "warning",
                    instances,
                    need,
                    need > instances,
                ),
            ],
            "fits": fits,
        }

    def _note(self, what: str, name: str) -> None:
        self.events.append({"time": NOW, "what": what, "container": name, "message": f"{name} {what}"})

    def details(self) -> dict[str, object]:
        """What the call ``server`` gives."""
        return {"version": "0.1.0", "containers": len(self.containers)}

    def chosen(self, selection: Selection) -> list[ContainerRecord]:
        """The chosen ones; all, if nothing was chosen."""
        return [self.containers[name].record() for name in self._choose(selection)]

    def usage(self, selection: Selection) -> UsageRecord:
        """What the chosen ones have used: each twice as much a second as the one before."""
        now = time.monotonic()
        chosen = [self.containers[name] for name in self._choose(selection)]
        return {
            "time": now, "cost": 0.001,
            "host": {
                "processors": 2, "memory_total_bytes": 8 << 30, "memory_available_bytes": 5 << 30,
                "swap_total_bytes": 1 << 30, "swap_free_bytes": 1 << 30,
            },
            "containers": [container.usage(now, 0.1 * 2**number) for number, container in enumerate(chosen)],
        }  # fmt: skip

    def verify(self, selection: Selection, packages: Sequence[str]) -> ProofRecord:
        """Whether the patch is everywhere."""
        unknown = [name for name in packages if not name.startswith("lib")]
        if unknown:
            raise NotFound(f"no package {unknown[0]!r} is installed on the host")
        records = [self.containers[name].evidence() for name in self._choose(selection)]
        return {
            "time": NOW, "host": "box", "system": "Debian GNU/Linux 12 (bookworm)", "kernel": "6.1.0",
            "base": "0123456789abcdef",
            "packages": {name: "1.0" for name in packages}, "proven": all(r["proven"] for r in records),
            "containers": records,
        }  # fmt: skip

    def shadows(self, selection: Selection) -> list[ShadowsRecord]:
        """What hides packages' files."""
        return [
            {"name": name, "state": each.state.value, "shadows": each.hidden, "diverged": each.diverged,
             "problem": each.unread}
            for name in self._choose(selection)
            for each in [self.containers[name]]
        ]  # fmt: skip

    def fix_shadows(self, selection: Selection, paths: Sequence[str], *, dry_run: bool) -> list[ResultRecord]:
        """Remove them."""
        results = []
        for name in self.choose(selection):
            each = self.containers[name]
            if each.state.alive:
                results.append(failed(name, WrongState(f"{name} is {each.state}", hint=f"stop it: lxcfleet stop {name}")))
            elif set(paths) - {shadow["path"] for shadow in each.hidden}:
                results.append(failed(name, NotFound(f"{', '.join(paths)}: no shadow in {name} that can be removed")))
            else:
                if not dry_run:
                    each.hidden = [shadow for shadow in each.hidden if shadow["path"] not in paths]
                results.append(done(name, "would be changed" if dry_run else "removed", changed=not dry_run))
        return results

    def exposure(self, selection: Selection) -> list[ExposureRecord]:
        """What the chosen ones can read and should not: what a test gave them."""
        return [
            {"name": name, "state": self.containers[name].state.value, "exposed": self.containers[name].exposed,
             "problem": self.containers[name].unread}
            for name in self._choose(selection)
        ]  # fmt: skip

    def notify(self) -> NoticeRecord:
        """The host's packages changed."""
        self.notices += 1
        return self.notice()

    def notice(self) -> NoticeRecord:
        """How far that is."""
        if not self.notices:
            return {"phase": "idle", "policy": "auto", "why": "", "until": None}
        return {"phase": "quiet", "policy": "auto", "why": "packages changed 0 s ago", "until": None}

    def stale(self, selection: Selection) -> list[StaleRecord]:
        """What the chosen ones run that is old: what a test gave them."""
        return [self.containers[name].stale() for name in self._choose(selection)]

    def roll(self, request: RolloutRequest) -> RolloutRecord:
        """Restart what is stale, or chosen, one in each wave; all at once."""
        under_way = self.rollout is not None and self.rollout["ended"] is None
        if request.kind == "restart" and under_way and not request.dry_run:
            raise Busy("a rollout is under way", hint="wait for it")
        names = self._choose(request.selection)
        runs = [name for name in names if self.containers[name].state.alive]
        chosen = [name for name in runs if request.kind == "restart" or self.containers[name].old_files]
        record = _rollout(request, chosen)
        if request.dry_run:
            record["waves"] = [[name] for name in chosen]
            record["changed"] = bool(chosen)
            return record
        if not chosen:
            record["status"], record["ended"] = "done", NOW
            return record
        self.rollout = record
        for wave, member in enumerate(record["containers"], 1):
            if member["name"] == self.halts_at:
                member["phase"] = "failed"
                record["status"], record["ended"] = "halted", None
                record["halted"] = {"container": member["name"], "why": "status 500", "log": "Traceback\x1b\n  oh"}
                break
            self.containers[member["name"]].old_files.clear()
            member["phase"], member["wave"] = "done", wave
            record["done"], record["wave"], record["changed"] = wave, wave, True
        else:
            record["status"], record["ended"] = "done", NOW
        begun = record.copy()
        begun["status"], begun["ended"] = "running", None
        return begun

    def change_rollout(self, status: str) -> RolloutRecord:
        """Pause, resume or abort it."""
        if self.rollout is None or self.rollout["ended"] is not None:
            raise WrongState("no rollout is under way")
        self.rollout["status"] = status
        self.rollout["halted"] = None
        if status == "aborted":
            self.rollout["ended"] = NOW
        return self.rollout

    def _choose(self, selection: Selection) -> tuple[str, ...]:
        empty = not (selection.patterns or selection.labels)
        return natural_order(self.containers) if empty else self.choose(selection)


def _rollout(request: RolloutRequest, names: list[str]) -> RolloutRecord:
    members: list[RolloutMemberRecord] = [
        {"name": name, "phase": "waiting", "wave": None, "stale": False, "note": ""} for name in names
    ]
    return {
        "id": "r1",
        "kind": request.kind,
        "status": "running",
        "created": NOW,
        "ended": None,
        "changed": False,
        "total": len(names),
        "done": 0,
        "wave": 0,
        "patches": int(request.kind == "patch"),
        "waits_for": "",
        "halted": None,
        "policy": overridden(RolloutSettings(), request.policy).to_json(),
        "containers": members,
        "waves": [],
    }


def _check_create(request: CreateRequest) -> None:
    init, command = request.said.get("init"), request.said.get("command")
    if init is Init.SYSTEM and command:
        raise InvalidInput("a system container takes no command")
    if init is Init.APP and not command:
        raise InvalidInput("an app container needs a command")
    if "profile" in request.said:
        raise InvalidInput(f"there is no profile {request.said['profile']!r}")
    if request.name is None and request.count is None:
        raise InvalidInput("neither name nor count")


def _created(name: str, request: CreateRequest) -> FakeContainer:
    spec = merge(request.said, {}, Config())
    return FakeContainer(
        name,
        init=spec.init,
        command=spec.command,
        labels=dict(spec.labels),
        environment=dict(spec.environment),
        check=spec.health,
        ports=tuple(map(str, spec.ports)),
        publish=tuple(map(str, spec.publish)),
        isolated=spec.isolated,
        first_id=None if spec.privileged else RANGE_SIZE * 16,
        autostart=spec.autostart,
        boot_order=spec.boot_order,
        state=State.STOPPED,
    )


def _finding(check: str, level: str, have: int, need: int, fixable: bool) -> FindingRecord:
    message = f"{have} there, {need} needed"
    return {
        "check": check,
        "level": level,
        "message": message,
        "have": have,
        "need": need,
        "hint": "" if level == "ok" else "raise it",
        "fixable": fixable,
    }
