"""The use cases behind the calls about fleets as files: plan, apply, scale, list, export, forget."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

from lxcfleet.api.fleets import (
    ApplyRecord,
    ChangeRecord,
    ExportRequest,
    FleetGroupRecord,
    FleetRecord,
    FleetRequest,
    PlanRecord,
    RemoveFleetRequest,
    ScaleRequest,
    TextRecord,
)
from lxcfleet.containers.container import Container
from lxcfleet.errors import Busy, Conflict, ErrorBody, FleetError, NotFound, WrongState
from lxcfleet.fleets import export
from lxcfleet.fleets.applied import Applied, AppliedGroup, while_tried
from lxcfleet.fleets.apply import AppHands, Core, LiveChanges, PlanInHand, check
from lxcfleet.fleets.changes import Current, Kind
from lxcfleet.fleets.plan import FleetPlan, OnHost, Prune, plan
from lxcfleet.fleets.store import FleetStore
from lxcfleet.patch.rollout.change_sets import ChangeSets, holds
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.runtime.operations import now
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.volumes import Volume, volumes_of
from lxcfleet.spec.files.fleet_apps import Present
from lxcfleet.spec.files.fleet_file import FleetFile, parse
from lxcfleet.spec.files.fleet_groups import Group
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.selection import natural_order
from lxcfleet.spec.states import State
from lxcfleet.units import counted


class Fleets:
    """The fleets of this host, as files."""

    def __init__(self, core: Core, orders: Orders, store: FleetStore, apps: AppHands, sets: ChangeSets) -> None:
        self._sets = sets
        self._core, self._orders, self._store, self._apps = core, orders, store, apps
        self._applying = False

    # -- planning --------------------------------------------------------------------------------------------

    async def plan(self, ask: FleetRequest, *, blind: bool = False) -> PlanRecord:
        """The plan of the file, and whether `apply` would be refused. ``blind``: see fleets.plan. Raises FleetError."""
        made = await self._plan(ask, blind=blind)
        try:
            await check(self._core, self._orders, made, ask.policy)
        except FleetError as error:
            return await self._record(made, error.body())
        return await self._record(made)

    async def _plan(self, ask: FleetRequest, *, blind: bool = False) -> FleetPlan:
        sources = Sources(ask.text, ask.where, ask.files, ask.missing)
        file = await asyncio.to_thread(parse, sources, self._core.config)
        file = file.on(os.uname().nodename)
        applied = self._store.find(file.fleet)
        named = {*file.apps, *(applied.apps if applied is not None else ())}
        apps = await asyncio.to_thread(self._apps.present, sorted(named))
        made = await self._compare(file, applied, Prune(ask.prune), adopt=ask.adopt, apps=apps, blind=blind)
        if ask.plan is not None and ask.plan != made.id:
            raise Conflict(
                f"the plan {ask.plan} does not hold any more",
                why=f"what the file changes now is the plan {made.id}" if made.changed else "the file changes nothing now",
                hint=f"see what it is now: lxcfleet diff -f {ask.where}",
            )  # fmt: skip
        return made

    async def _compare(
        self, file: FleetFile, applied: Applied | None, prune: Prune, *, adopt: bool = False,
        apps: Present | None = None, blind: bool = False,
    ) -> FleetPlan:  # fmt: skip
        await self._core.registry.observe()
        back = self._sets.put_back()
        containers = {each.name: _current(each, back.get(each.name, {})) for each in self._core.registry}
        others = [each for each in self._store if each.fleet != file.fleet]
        volumes = self._core.volumes.present(file.volumes)
        settings = self._core.config

        def compare() -> FleetPlan:
            return plan(
                file, applied, OnHost(containers, others, volumes, apps), settings, prune=prune, adopt=adopt, time=now(),
                blind=blind,
            )  # fmt: skip

        return await asyncio.to_thread(compare)

    async def _record(self, made: FleetPlan, refused: ErrorBody | None = None) -> PlanRecord:
        changes: list[ChangeRecord] = []
        for each in made.changes:
            record: ChangeRecord = {
                "name": each.name, "group": each.group, "change": each.kind, "differs": dict(each.differs), "why": each.why,
            }  # fmt: skip
            if each.kind is Kind.DESTROY:
                size = await self._core.looks.size(each.name)
                if size is not None:
                    record["delta_bytes"] = size
            changes.append(record)
        return {
            "id": made.id,
            "fleet": made.fleet,
            "changed": made.changed,
            "volumes": [
                {"name": each.name, "change": Kind.CREATE if each.new else Kind.LIVE, "differs": dict(each.differs)}
                for each in made.volumes
            ],
            "secrets": [{"name": s.name, "change": s.change, "differs": dict(s.differs)} for s in made.secrets],
            "apps": [{"name": a.name, "change": a.change, "differs": dict(a.differs)} for a in made.apps],
            "changes": changes,
            "kept": [{"name": k.name, "key": k.key, "file": k.file, "now": k.now, "why": k.why} for k in made.kept],
            "left": list(made.left),
            "not_compared": list(made.not_compared),
            "refused": refused,
        }

    # -- changing --------------------------------------------------------------------------------------------

    async def apply(self, ask: FleetRequest) -> ApplyRecord:
        """Begin to make the containers as the file has them. Raises FleetError, and then nothing is changed."""
        with self._alone():
            made = await self._plan(ask)
            live = await check(self._core, self._orders, made, ask.policy)
            return await self._begin("apply", made, live, ask.policy)

    async def scale(self, ask: ScaleRequest) -> ApplyRecord:
        """Begin to give a group another count. Raises FleetError, and then nothing is changed."""
        with self._alone():
            applied, group = self._group(ask)
            by = "" if ask.count == group.count else f"scale, {now()[:16]}Z"
            wanted = replace(group, now=ask.count, by=by, held=min(group.held, ask.count))
            during = replace(applied, groups={**applied.groups, ask.group: wanted})
            asked = Group(ask.group, applied.where, group.count, group.said, group.members, rollout=group.rollout)
            file = FleetFile(applied.fleet, applied.where, {ask.group: asked}, secrets=applied.secrets)
            made = await self._compare(file, during, Prune.NO)
            after = replace(applied, groups={**applied.groups, ask.group: replace(wanted, held=ask.count)})
            made = replace(
                made, after=after, before=applied, left=(), kept=(),
                changes=tuple(each for each in made.changes if each.kind in (Kind.CREATE, Kind.START, Kind.STOP)),
            )  # fmt: skip
            live = await check(self._core, self._orders, made, {})
            if ask.dry_run:
                operation = self._core.operations.dry("scale", [], [])
                record = await self._record(made)
                return cast(ApplyRecord, {**operation.record(), "fleet_plan": {**record, "id": ""}})
            if made.changed:
                self._store.keep(during)  # what is not carried out now is what the next apply does
            return await self._begin("scale", made, live, {})

    def _group(self, ask: ScaleRequest) -> tuple[Applied, AppliedGroup]:
        fleets = [self._store.get(ask.fleet)] if ask.fleet is not None else [*self._store]
        found = [(each, each.groups[ask.group]) for each in fleets if ask.group in each.groups]
        if not found:
            raise NotFound(f"no fleet has a group {ask.group}", hint="`lxcfleet fleet list` shows fleets and their groups")
        applied, group = found[0]
        if group.count is None:
            raise WrongState(
                f"{ask.group} is one container of its own name, and has no count", hint=f"give it one in {applied.where}"
            )
        return applied, group

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a second change of fleets while there is one."""
        if self._applying or self._core.operations.any("apply") or self._core.operations.any("scale"):
            raise Busy("another apply is under way", hint="wait for its end: `lxcfleet events -f` follows it")
        self._applying = True
        try:
            yield
        finally:
            self._applying = False

    async def _begin(
        self, action: str, made: FleetPlan, live: LiveChanges, policy: Mapping[str, object]
    ) -> ApplyRecord:
        record = await self._record(made)
        if made.changed:
            if made.before is not None and (values := made.values):
                during = while_tried(self._store.find(made.fleet) or made.before, values, made.had)
                self._store.keep(during)
                made = replace(made, before=during)
            work = PlanInHand(self._core, self._orders, self._store, made, live, policy, self._apps)
            operation = self._core.operations.run(action, made.count, work.run)
        else:
            operation = self._core.operations.dry(action, [], [])
            if not made.after.same(made.before):
                self._store.keep(made.after)
        return cast(ApplyRecord, {**operation.record(), "fleet_plan": record})

    # -- the fleets themselves -------------------------------------------------------------------------------

    async def fleets(self) -> list[FleetRecord]:
        """All fleets that were applied here."""
        await self._core.registry.observe()
        return [self._fleet_record(each) for each in self._store]

    def _fleet_record(self, applied: Applied) -> FleetRecord:
        owned = self._owned(applied.fleet)
        mine: dict[str, list[Container]] = {name: [] for name in applied.groups}
        for each in owned:
            mine.setdefault((each.wanted and each.wanted.group) or "", []).append(each)
        groups: list[FleetGroupRecord] = []
        for name, members in mine.items():  # those at the end have containers, and stand in the file no more
            group = applied.groups.get(name)
            groups.append(
                {
                    "name": name,
                    "count": group.count if group else 0,
                    "now": group.now if group else 0,
                    "why": group.by if group else "",
                    "containers": list(natural_order(each.name for each in members)),
                    "running": sum(each.running is not None for each in members),
                }
            )
        return {"name": applied.fleet, "file": applied.where, "applied": applied.time, "groups": groups}

    def _owned(self, fleet: str) -> list[Container]:
        return [each for each in self._core.registry if each.wanted is not None and each.wanted.fleet == fleet]

    async def remove(self, ask: RemoveFleetRequest) -> FleetRecord:
        """Forget a fleet. Raises FleetError."""
        with self._alone():
            await self._core.registry.observe()
            owned = self._owned(ask.fleet)
            if owned and not ask.orphan:
                raise Conflict(
                    f"the fleet {ask.fleet} has {counted(len(owned), 'container')}",
                    hint="destroy them by a file without groups and `apply --prune=all`, or leave them to nobody: --orphan",
                )  # fmt: skip
            known = next((each for each in self._store if each.fleet == ask.fleet), None)
            if known is None and not owned and not self._store.is_known(ask.fleet):
                self._store.get(ask.fleet)
            record = self._fleet_record(known or Applied(ask.fleet, "", ""))
            specs = {each.name: replace(each.wanted, fleet=None, group=None) for each in owned if each.wanted is not None}
            await self._core.changing.carry_out(await self._core.changing.check(owned, specs, askable()))
            self._store.forget(ask.fleet)
            return record

    async def export(self, ask: ExportRequest) -> TextRecord:
        """A file for existing containers: the chosen ones, or those that the fleet owns. Raises FleetError."""
        await self._core.registry.observe()
        said = ask.selection
        chosen = self._core.registry.choose(said) if said.narrow or said.everything else self._owned(ask.fleet)
        if not chosen:
            raise NotFound(
                f"the fleet {ask.fleet} has no containers", hint="choose containers by names, -l KEY=VALUE or --all"
            )
        applied = next((each for each in self._store if each.fleet == ask.fleet), None)
        specs = [each.wanted for each in chosen if each.wanted is not None]
        elsewhere = {name for each in self._store if each.fleet != ask.fleet for name in each.volumes}
        named = {name for spec in specs for name in volumes_of(spec.volumes)} | {*(applied.volumes if applied else ())}
        present = self._core.volumes.present(sorted(named - elsewhere))
        whole = [each for each in present.values() if isinstance(each, Volume)]
        return {"text": export.text(ask.fleet, specs, applied, self._core.config, whole)}


def _current(container: Container, back: Mapping[str, Any]) -> Current:
    """``back``: the values that an undo gave it."""
    in_force = container.spec if container.running is not None or container.unseen else None
    wanted = container.wanted
    put_back = frozenset(key for key in back if wanted is not None and holds(wanted, {key: back[key]}))
    why, past = "", container.exit
    if container.state is State.STOPPED and past is None:
        why = "it was not started"
    elif container.state is State.STOPPED and past is not None and not past.asked:
        why = past.words
    return Current(wanted, in_force, container.state, put_back, why)
