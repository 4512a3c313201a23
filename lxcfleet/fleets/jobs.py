"""Jobs of a fleet file: what others wait for to be completed. Tells which of them run once more, what comes after them, and
what can't be restarted as its job is not completed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lxcfleet.fleets.changes import DOWN, Change, Current, Kind
from lxcfleet.spec.container.depends import Condition, Graph
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_groups import Group, depends_of, place_of
from lxcfleet.spec.states import State
from lxcfleet.units import some

_NAMED = 3
_FAILED = "it ended with an error, and runs once more, as it has to be completed before"


def jobs(file: FleetFile) -> set[str]:
    """The groups and containers that others of the file wait for to be completed: they are to run once, and to end."""
    said = [each for group in file.groups.values() for each in (group.said, *group.members.values())]
    return {name for each in said for name, how in each.get("depends_on", {}).items() if how == Condition.COMPLETED}


class Jobs:
    """The jobs of a file, and those that wait for each of them."""

    def __init__(
        self, file: FleetFile, members: Mapping[str, Collection[str]], containers: Mapping[str, Current],
        changes: Sequence[Change],
    ) -> None:  # fmt: skip
        """``members``: the containers of each group of the file; ``changes``: what the file changes anyhow."""
        self._containers, self._changes = containers, {each.name: each for each in changes}
        self._members = {name: list(names) for name, names in members.items()}
        for name, now in containers.items():
            own = None if now.spec is None else now.spec.group
            if own is not None and name not in self._members.setdefault(own, []):
                self._members[own].append(name)
        self._awaited: dict[str, dict[str, str]] = {}
        """By the container of a job: those that wait for it, each with the place where its group says so."""
        for group in file.groups.values():
            for name in members[group.name]:
                for job, place in self._jobs_of(group, name):
                    self._awaited.setdefault(job, {})[name] = place

    def _jobs_of(self, group: Group, name: str) -> Iterator[tuple[str, str]]:
        for other, how in depends_of(group, name).items():
            if how == Condition.COMPLETED:
                known = other in self._containers or other in self._changes
                for job in [other] if known else self._members.get(other, []):
                    yield job, f"{place_of(group, other)}: groups: {group.name}: depends_on.{other}"

    def again(self, own: Collection[str]) -> Iterator[Change]:
        """The changes by which jobs run once more that ended with an error, while others wait for them: what was not carried
        out to the end is for the next apply. ``own``: the containers that the file has."""
        for job, waiting in self._awaited.items():
            now, change = self._containers.get(job), self._changes.get(job)
            if job not in own or now is None or now.spec is None or now.state is not State.FAILED:
                continue
            late = [name for name in waiting if self._waits(name)]
            if not late or (change is not None and (change.starts or change.kind is not Kind.LIVE)):
                continue
            why = f"{_FAILED} {some(late, _NAMED)}"
            if change is not None:
                yield replace(change, why=why, starts=True, job=True)
            else:
                yield Change(job, now.spec.group or "", Kind.START, now.spec, why=why, former=now.spec, job=True)

    def _waits(self, name: str) -> bool:
        """Whether a container waits for its jobs: now, or once it is made or restarted."""
        now, change = self._containers.get(name), self._changes.get(name)
        return (now is not None and now.state is State.BLOCKED) or (change is not None and _begins(change))

    def stuck(self, changes: Iterable[Change]) -> Iterator[str]:
        """Complaints about what is to be restarted, and could not start again, as nothing has its job run. ``changes``: all
        of them."""
        run = {each.name for each in changes if _begins(each)}
        for job, waiting in self._awaited.items():
            now = self._containers.get(job)
            if now is None or job in run or now.state not in (State.STOPPED, State.FAILED):
                continue
            restarted = [name for name in waiting if name in self._changes and self._changes[name].kind is Kind.RESTART]
            if restarted:
                yield f"{waiting[restarted[0]]}: {job} is not completed: {now.why or DOWN[now.state]}"


def _begins(change: Change) -> bool:
    return change.starts or change.kind in (Kind.CREATE, Kind.RESTART, Kind.START)


def after(changes: Sequence[Change], containers: Mapping[str, Current]) -> frozenset[str]:
    """The new containers that are made once jobs have run, as they wait for these, be it through others."""
    run = {each.name for each in changes if each.job and each.kind is not Kind.CREATE}
    if not run:
        return frozenset()
    specs = {name: now.spec for name, now in containers.items() if now.spec is not None}
    specs |= {each.name: each.spec for each in changes if each.spec is not None}
    groups: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if spec.group is not None:
            groups.setdefault(spec.group, []).append(name)
    graph = Graph({name: spec.depends_on for name, spec in specs.items()}, groups)
    late: dict[tuple[str, ...], bool] = {}
    found = []
    for each in changes:
        if each.kind is Kind.CREATE and each.spec is not None:
            depends = tuple(each.spec.depends_on)
            if depends not in late:
                late[depends] = not run.isdisjoint(graph.awaited(depends))
            if late[depends]:
                found.append(each.name)
    return frozenset(found)
