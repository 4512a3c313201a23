"""The plan for a file: from the file, what was applied last and the containers there are, to a list of changes. Pure.

It imports nothing of ``host``, so that whoever only plans can't act. Meaning is compared, field by field, never text.

A field changes if the file says something else than when it was applied last. What `set` or `scale` changed since stays as
long as the file's own value did not move; the plan tells of it. What was not carried out to the end was not applied: so if
the daemon is killed half-way, the next plan has the rest. What such an apply gave a container is nobody else's: a file that
says what was applied before it takes that back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from lxcfleet.containers.reconciling.changes import await_restart, risky
from lxcfleet.errors import Conflict, FleetError, InvalidInput
from lxcfleet.fleets import dependencies
from lxcfleet.fleets.applied import Applied, AppliedGroup, is_tried, of_file, with_init
from lxcfleet.fleets.apps import AppChange, plan_apps
from lxcfleet.fleets.changes import DOWN, OPEN, SPECS, STATE, Change, Current, Kept, Kind
from lxcfleet.fleets.jobs import Jobs, after, jobs
from lxcfleet.fleets.secrets import SecretChange, plan_secrets
from lxcfleet.fleets.volumes import VolumeChange, plan_volumes
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import askable, stored
from lxcfleet.spec.container.merging import merged
from lxcfleet.spec.container.secrets import SOURCES
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import Volume
from lxcfleet.spec.files.fleet_apps import Present
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_groups import Group
from lxcfleet.spec.files.fleet_sources import in_order
from lxcfleet.spec.reading.rows import Effect as Takes
from lxcfleet.spec.reading.rows import Row
from lxcfleet.spec.selection import natural_order
from lxcfleet.spec.states import State
from lxcfleet.units import counted

_UNSAID = object()
_CAN_NOT = "the file can't be applied; nothing is changed"
_MENDED = "it ended with an error, and is started with that"
_AGAIN = "it is a job that was completed, and runs once more with that"


class Prune(StrEnum):
    """The fate of containers that the fleet owns, and the file does not have any more."""

    NO = "no"
    YES = "yes"
    ALL = "all"
    """Also if these are more than half of them, or a whole group."""


@dataclass(frozen=True)
class OnHost:
    """The containers of the host, and what else a plan has to know of it."""

    containers: Mapping[str, Current]
    others: Sequence[Applied] = ()
    """All other fleets."""
    volumes: Mapping[str, Volume | FleetError] = field(default_factory=dict)
    """The volumes of the file that exist."""
    apps: Present | None = None
    """The releases of each app; None: that is not looked at."""


@dataclass(frozen=True)
class FleetPlan:
    """The changes that the file would make."""

    fleet: str
    changes: tuple[Change, ...]
    kept: tuple[Kept, ...]
    left: tuple[str, ...]
    """Containers that the fleet owns, that the file does not have, and that are left alone."""
    after: Applied
    """The fleet as it is applied then."""
    before: Applied | None
    volumes: tuple[VolumeChange, ...] = ()
    """Volumes that are made or changed before anything else."""
    secrets: tuple[SecretChange, ...] = ()
    """Secrets whose source is another one than before."""
    apps: tuple[AppChange, ...] = ()
    """Apps of which other releases are kept than before."""
    after_jobs: frozenset[str] = frozenset()
    """New containers that are made once jobs have run that they wait for."""
    stuck: tuple[str, ...] = ()
    """Complaints about jobs that nothing has run, and that are waited for by what is to be restarted."""
    not_compared: tuple[str, ...] = ()
    """Keys whose values are no part of the plan, as those who asked may not see them."""

    @property
    def id(self) -> str:
        """Tells this plan from any other one; empty for one that is not the whole, and can't be carried out. States are no
        part of it: one that fails and is started again has another one from second to second, and nothing is done to it."""
        if self.not_compared:
            return ""
        numbers: dict[int, int] = {}  # new containers that are alike share one spec, which is rendered once
        rendered: list[dict[str, Any]] = []
        specs = {}
        told = [each for each in self.changes if each.differs or each.kind is not Kind.START or not each.job]
        for each in told:
            if each.spec is not None:
                if id(each.spec) not in numbers:
                    numbers[id(each.spec)] = len(rendered)
                    rendered.append(_rendered(each.spec))
                specs[each.name] = numbers[id(each.spec)]
        lines = [(each.name, each.kind, sorted(each.differs.items())) for each in told]
        volumes = [(each.name, each.new, sorted(each.differs.items())) for each in self.volumes]
        kept = [vars(each) for each in self.kept if each.key != STATE]
        secrets = sorted(SOURCES.render(self.after.secrets).items()) if self.secrets else []
        whole = [self.fleet, lines, specs, rendered, kept, volumes, secrets]
        whole += [[each.name, each.change, sorted(each.differs.items())] for each in self.apps]
        text = json.dumps(whole, sort_keys=True)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]

    @property
    def changed(self) -> bool:
        """Whether carrying it out changes any container or volume, any source of a secret, or what is kept of an app."""
        return bool(self.count)

    @property
    def count(self) -> int:
        """How many changes there are."""
        return len(self.changes) + len(self.volumes) + len(self.secrets) + len(self.apps)

    @property
    def values(self) -> dict[str, dict[str, Any]]:
        """By name and key, what containers that exist get."""
        return {each.name: _of_spec(each.spec, each.differs) for each in self.of(*SPECS)}

    @property
    def had(self) -> dict[str, dict[str, Any]]:
        """By name and key, what these containers have now in place of that."""
        return {each.name: _of_spec(each.former, each.differs) for each in self.of(*SPECS)}

    def of(self, *kinds: Kind) -> list[Change]:
        """The changes of these kinds."""
        return [each for each in self.changes if each.kind in kinds]


def _of_spec(spec: Spec | None, keys: Collection[str]) -> dict[str, Any]:
    rows = askable()
    return {key: getattr(spec, key) for key in keys if key in rows}


def _rendered(spec: Spec) -> dict[str, Any]:
    return {key: row.render(getattr(spec, key)) for key, row in stored().items()}


def plan(
    file: FleetFile,
    applied: Applied | None,
    there: OnHost,
    settings: Any,
    *,
    prune: Prune = Prune.NO,
    adopt: bool = False,
    time: str = "",
    blind: bool = False,
) -> FleetPlan:
    """The plan for ``file``, which has only groups of this host. ``applied``: the same fleet, as it was applied last.

    ``blind``: whoever asks may not see secret values, so nothing of the plan depends on those that containers have: else each
    value could be found by guesses. Raises Conflict and InvalidInput with all that is in the way.
    """
    _refuse_shared(file, there.others)
    of_volumes = plan_volumes(file.volumes, applied, there.others, there.volumes)
    of_apps = () if there.apps is None else plan_apps(file, applied, there.apps)
    containers = there.containers
    if blind:
        containers = {name: each.without_secrets() for name, each in containers.items()}
    planner = _Planner(file, applied, containers, settings, adopt=adopt, blind=blind)
    changes = [*planner.groups()]
    planner.refuse()
    planner.refuse_dependencies({name for other in there.others for name in other.groups}, prune)
    changes, stuck = planner.with_jobs(changes)
    gone = [name for name in planner.owned() if name not in planner.wanted]
    surplus = [*planner.surplus(gone)]
    destroyed: list[Change] = []
    if prune is not Prune.NO:
        destroyed = [Change(name, planner.group_of(name), Kind.DESTROY, why="the file does not have it") for name in gone]
        _refuse_many(planner, destroyed, prune)
    stopped = [] if destroyed else surplus
    ordered = {each.name: each for each in [*changes, *stopped, *destroyed]}
    left = tuple(name for name in gone if not destroyed and name not in {each.name for each in surplus} | planner.resting)
    return FleetPlan(
        file.fleet, tuple(ordered[name] for name in natural_order(ordered)), tuple(planner.kept), left,
        of_file(file, applied, time), applied, of_volumes,
        plan_secrets(file.secrets, applied.secrets if applied is not None else {}), of_apps,
        after(changes, containers), tuple(stuck), tuple(OPEN) if blind else (),
    )  # fmt: skip


def _refuse_shared(file: FleetFile, others: Sequence[Applied]) -> None:
    shared = [
        f"{file.groups[name].place}: the group {name} belongs to the fleet {other.fleet}, too ({other.where})"
        for other in others
        for name in other.groups
        if name in file.groups
    ]
    if shared:
        raise Conflict(
            "two fleets have a group of the same name", why="\n".join(shared),
            hint="rename one, or remove the other fleet: lxcfleet fleet rm",
        )  # fmt: skip


def _refuse_many(planner: _Planner, destroyed: Sequence[Change], prune: Prune) -> None:
    if prune is Prune.ALL or not destroyed:
        return
    owned = planner.owned()
    dead = {each.name for each in destroyed}
    groups = {planner.group_of(name) for name in dead}
    whole = sorted(each for each in groups if all(name in dead for name in owned if planner.group_of(name) == each))
    if 2 * len(dead) > len(owned) or whole:
        what = f"all of the group {whole[0]}" if whole else f"{len(dead)} of {counted(len(owned), 'container')} of the fleet"
        raise Conflict(
            f"--prune would destroy {what}", why=f"these are not in the file: {', '.join(natural_order(dead))}",
            hint="if that is meant, say --prune=all",
        )  # fmt: skip


class _Planner:
    """Compares one file with what there is."""

    def __init__(
        self, file: FleetFile, applied: Applied | None, containers: Mapping[str, Current], settings: Any, *, adopt: bool,
        blind: bool,
    ) -> None:  # fmt: skip
        self._file, self._containers, self._settings, self._adopt = file, containers, settings, adopt
        self._passed_over = {"profile", *(OPEN if blind else ())}
        self._before: Mapping[str, AppliedGroup] = applied.groups if applied is not None else {}
        self._tried = applied.tried if applied is not None else {}
        self._had = applied.had if applied is not None else {}
        self._jobs = jobs(file)
        self._news: dict[int, Spec] = {}
        self._liked: dict[int, tuple[Mapping[str, Any], Spec]] = {}
        self.kept: list[Kept] = []
        self.wanted: set[str] = set()
        self.resting: set[str] = set()
        """Members that are too many, and don't run."""
        self._wrong: list[str] = []
        self._never: list[str] = []
        self._strangers: list[str] = []

    def owned(self) -> list[str]:
        """All containers that the fleet owns."""
        fleet = self._file.fleet
        return [n for n, each in self._containers.items() if each.spec is not None and each.spec.fleet == fleet]

    def group_of(self, name: str) -> str:
        """The group of a container that the fleet owns."""
        spec = self._containers[name].spec
        return (spec.group if spec is not None else None) or ""

    def refuse(self) -> None:
        """Raise the error for what is in the way, if anything is."""
        if self._strangers:
            raise Conflict(
                "containers with these names exist already, and do not belong to this fleet", why="\n".join(self._strangers),
                hint="rename the group, or take over those that belong to nobody: --adopt",
            )  # fmt: skip
        if self._never:
            raise Conflict(
                "that can't be changed in containers that exist", why="\n".join(self._never),
                hint="destroy them, and apply the file again",
            )  # fmt: skip
        if self._wrong:
            raise InvalidInput(_CAN_NOT, why="\n".join(self._wrong))

    def refuse_dependencies(self, groups: Collection[str], prune: Prune) -> None:
        """Raise InvalidInput if anything depends on what will not be there. ``groups``: of other fleets' files."""
        file = self._file
        groups = {*groups, *self._before} if prune is Prune.NO else groups
        members = self._members()
        lost = {*self.owned()} - self.wanted if prune is not Prune.NO else set()
        others = {*self._containers} - self.wanted - lost
        present = {name: spec for name in others if (spec := self._containers[name].spec) is not None}
        found = [*dependencies.wrong(file, members, present, groups)]
        if found:
            raise InvalidInput(_CAN_NOT, why="\n".join(in_order(found)))

    def _members(self) -> dict[str, tuple[str, ...]]:
        groups = self._file.groups.values()
        return {each.name: each.names(self._count(each, self._before.get(each.name), tell=False)) for each in groups}

    def with_jobs(self, changes: Sequence[Change]) -> tuple[list[Change], list[str]]:
        """The changes, with those jobs that run once more as others wait for them; and what is stuck, see Plan."""
        found = Jobs(self._file, self._members(), self._containers, changes)
        again = {each.name: each for each in found.again(self.wanted)}
        self.kept = [each for each in self.kept if each.key != STATE or each.name not in again]
        both = [*({each.name: each for each in changes} | again).values()]
        return both, in_order(found.stuck(both))

    def groups(self) -> Iterator[Change]:
        """The changes of all containers that the file has."""
        for group in self._file.groups.values():
            before = self._before.get(group.name)
            count = self._count(group, before)
            for number, name in enumerate(group.names(count), 1):
                self.wanted.add(name)
                yield from self._container(group, before, name, number)

    def surplus(self, gone: Sequence[str]) -> Iterator[Change]:
        """Stops of members beyond the count of a group that the file has."""
        for name in gone:
            group = self._file.groups.get(self.group_of(name))
            if group is None or group.count is None:
                continue
            if self._containers[name].in_force is None:
                self.resting.add(name)
            else:
                count = self._count(group, self._before.get(group.name), tell=False)
                now = counted(count or 0, "container")
                yield Change(name, group.name, Kind.STOP, why=f"the group has {now} now; its data stays")

    def _count(self, group: Group, before: AppliedGroup | None, *, tell: bool = True) -> int | None:
        if before is None or before.count != group.count or before.now is None or group.count is None:
            return group.count
        if tell and before.now != group.count:
            self.kept.append(Kept(group.name, "count", str(group.count), str(before.now), before.by))
        return before.now

    def _container(self, group: Group, before: AppliedGroup | None, name: str, number: int) -> Iterator[Change]:
        now = self._containers.get(name)
        if now is None:
            yield Change(name, group.name, Kind.CREATE, self._new(group, name), job=self._is_job(group, name))
            return
        if now.spec is None:
            self._wrong.append(f"{group.place}: groups: {group.name}: {name} is broken: its spec can't be read")
            return
        if now.spec.fleet != self._file.fleet:
            owner = f"belongs to the fleet {now.spec.fleet}" if now.spec.fleet else "belongs to no fleet"
            if now.spec.fleet or not self._adopt:
                self._strangers.append(f"{group.place}: groups: {group.name}: {name} {owner}")
                return
        returns = before is not None and number > before.held  # what changed while it was one too many passed it by
        known = before is not None and now.spec.fleet == self._file.fleet and not returns
        last = before.of(name) if before is not None and known else None
        yield from self._existing(group, name, now, last, starts=returns)

    def _new(self, group: Group, name: str) -> Spec:
        """The spec of a new container: the same one for all that the file says the same of."""
        said = group.of(name)
        if id(said) not in self._news:
            self._news[id(said)] = replace(self._like(said), fleet=self._file.fleet, group=group.name)
        return self._news[id(said)]

    def _like(self, said: Mapping[str, Any]) -> Spec:
        return merged(said, {}, self._settings)

    def _existing(
        self, group: Group, name: str, now: Current, last: Mapping[str, Any] | None, *, starts: bool
    ) -> Iterator[Change]:
        assert now.spec is not None
        spec, place = now.spec, f"{group.place}: groups: {group.name}: {name}"
        values, moved = self._moved(group, name, now, last)
        self._never += [f"{place}: {key}: {askable()[key].why}" for key in values if askable()[key].change is Takes.NEVER]
        values = {key: value for key, value in values.items() if askable()[key].change is not Takes.NEVER}
        wanted = replace(spec, **values, fleet=self._file.fleet, group=group.name)
        if values:
            self._wrong += [f"{place}: {key}: {problem}" for key, problem in combinations.problems(wanted)]
        owed = [key for key in await_restart(now.in_force, wanted) if key in moved]
        differs = self._differs(now, wanted, [*values], owed)
        starts = starts and now.in_force is None
        job = self._is_job(group, name)
        done = now.state is State.EXITED and job
        if owed:
            yield Change(name, group.name, Kind.RESTART, wanted, differs, former=spec)
        elif starts:
            yield Change(name, group.name, Kind.START, wanted, differs, "the group has more containers now", spec)
        elif wanted != spec:
            # Limits that are lower in the former spec, and what takes a restart, may be why it ended.
            cause = {*await_restart(spec, wanted), *risky(wanted, spec)} - {"publish"}
            mends = now.state is State.FAILED and bool(cause)
            # What others wait for has not been done yet as the file has it now: a migration to the next version, say.
            again = done and bool(await_restart(spec, wanted))
            note = _MENDED if mends else _AGAIN if again else ""
            starts = mends or again
            yield Change(name, group.name, Kind.LIVE, wanted, differs, note, spec, starts, starts and job)
        if now.in_force is None and not starts and now.state in DOWN and not done:
            self.kept.append(Kept(name, STATE, "runs", now.state, now.why or DOWN[now.state]))

    def _is_job(self, group: Group, name: str) -> bool:
        return not self._jobs.isdisjoint((name, group.name))

    def _said(self, of_file: Mapping[str, Any]) -> tuple[Mapping[str, Any], Spec]:
        """The values that the file says of a container, and the spec that follows from them: made once for all alike."""
        if id(of_file) not in self._liked:
            said = with_init(of_file)
            self._liked[id(of_file)] = said, self._like(said)
        return self._liked[id(of_file)]

    def _moved(
        self, group: Group, name: str, now: Current, last: Mapping[str, Any] | None
    ) -> tuple[dict[str, Any], set[str]]:
        """The values that a container gets, by key, and the keys that the file gives another value than before."""
        said, like = self._said(group.of(name))
        values, moved = {}, set()
        for key, row in askable().items():
            has, wants = getattr(now.spec, key), getattr(like, key)
            if key in self._passed_over or (last is None and key not in said and (row.setting or row.stays)):
                continue  # what the settings say now holds for new containers alone, and what stays was not the file's
            if last is not None and said.get(key, _UNSAID) == last.get(key, _UNSAID):
                if has == wants or not is_tried(self._tried.get(name, ()), key, has):
                    if key in said and has != wants:
                        is_now, in_file = _words(row, has, wants)
                        by = "rollout undo" if key in now.put_back else "set"
                        self.kept.append(Kept(name, key, in_file, is_now, by))
                    continue
                wants = self._had.get(name, {}).get(key, wants)  # the file never moved, so what others gave it comes back
            moved.add(key)
            if has != wants:
                values[key] = wants
        return values, moved

    def _differs(
        self, now: Current, wanted: Spec, changed: Sequence[str], owed: Sequence[str]
    ) -> dict[str, tuple[str, str]]:
        """By key, in words: what it has, and what it gets. ``owed``: keys that its run does not have yet."""
        assert now.spec is not None
        rows = askable()
        found = {key: _words(rows[key], getattr(now.spec, key), getattr(wanted, key)) for key in changed}
        for key in owed:
            if key not in found:
                found[key] = _words(rows[key], getattr(now.in_force, key), getattr(wanted, key))
        for key in ("fleet", "group"):
            if getattr(now.spec, key) != getattr(wanted, key):
                found[key] = (getattr(now.spec, key) or "none", getattr(wanted, key))
        return found


def _words(row: Row, has: Any, wanted: Any) -> tuple[str, str]:
    if has is None or wanted is None:
        return row.tell(has), row.tell(wanted)
    return row.type.tell_difference(has, wanted)
