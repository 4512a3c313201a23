"""Changing the specs of existing containers, and restarting the containers that need it: that restart is a rollout."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from lxcfleet.api.records import CreationRecord, RolloutRecord, SetRecord
from lxcfleet.api.requests import CreateRequest, SetRequest
from lxcfleet.containers.requests import services
from lxcfleet.containers.requests.changing import BEGUN, Planned, restart_lines, to_restart, turn_lines
from lxcfleet.containers.requests.request import units_of
from lxcfleet.daemon.uses.service import Fleet
from lxcfleet.errors import FleetError
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.runtime.operations import result_record
from lxcfleet.spec.container.assignments import parse_all
from lxcfleet.units import some

_NAMED = 5


class Setting:
    """``set``, and ``create --ensure --update``."""

    def __init__(self, fleet: Fleet, rollouts: Orders) -> None:
        self._fleet = fleet
        self._rollouts = rollouts

    async def set(self, ask: SetRequest) -> SetRecord:
        """Change the specs of all chosen containers, or of none. Raises FleetError."""
        fleet = self._fleet
        await fleet.registry.observe()
        chosen = fleet.registry.choose(ask.selection)
        planned = await fleet.changing.plan(chosen, parse_all(ask.assignments), fleet.config)
        if not ask.ignore_depends:
            await fleet.changing.refuse_unfit(planned)
        for each in planned:
            if each.spec.secrets != each.former.secrets:
                fleet.secrets.find(each.container.name, each.spec)
        names = to_restart(planned) if ask.restart else []
        turns = self._in_turns(planned, names, ask.policy)
        if ask.dry_run:
            results, lines = fleet.changing.foresee(planned)
            lines += restart_lines(planned) if ask.restart else []
            lines += turn_lines(name for name in turns if name not in names)
            rollout = None
        else:
            if names or turns:
                self._rollouts.refuse_second()
            at_once = [each for each in planned if each.container.name not in turns]
            done = {result.name: result for result in await fleet.changing.carry_out(at_once)}
            lines, rollout = [], await self._begin(at_once, turns, ask.policy, restart=ask.restart)
            results = [done.get(each.container.name) or each.result(BEGUN) for each in planned]
        return {
            "changed": bool(names) or any(result.changed for result in results),
            "dry_run": ask.dry_run,
            "results": [result_record(result) for result in results],
            "plan": lines,
            "restarts": names,
            "restart_needed": [] if names else to_restart(planned),
            "notes": await self._notes([each.spec.units for each in planned if each.spec.units != each.former.units]),
            "rollout": rollout,
        }

    def _in_turns(
        self, planned: Sequence[Planned], names: Collection[str], policy: Mapping[str, Any]
    ) -> dict[str, Planned]:
        """Those that get their specs in their turns, by name. ``names``: these are restarted, and get theirs just before.
        Whom a halt keeps from its restart has its former spec still, also after a boot of the host."""
        staying = [each for each in planned if each.changed and each.container.name not in names]
        restarted = [each for each in planned if each.container.name in names]
        found = [*self._rollouts.gated(staying, policy), *restarted]
        return {each.container.name: each for each in found}

    async def _begin(
        self, at_once: Sequence[Planned], turns: Mapping[str, Planned], policy: Mapping[str, Any], *, restart: bool,
    ) -> RolloutRecord | None:  # fmt: skip
        """Begin the rollout that gives ``turns`` their specs, if there are any, and restarts those that it takes. Raises
        FleetError."""
        if not turns:
            return None
        # One may have been destroyed meanwhile, and another one may have its name.
        wanted = {name: each.spec for name, each in turns.items() if self._fleet.registry.knows(each.container)}
        resting = {each.container.name: (each.former, each.spec) for each in at_once if each.changed}
        try:
            return await self._rollouts.begin_change(
                wanted, policy, auto_revert=self._rollouts.reverts(wanted), resting=resting, later=not restart
            )
        except FleetError as error:
            raise type(error)(
                f"not all is changed: {error.message}; with their former specs still: {some([*wanted], _NAMED)}",
                why=error.why, hint=_again(error),
            ) from error  # fmt: skip

    async def create(self, ask: CreateRequest) -> CreationRecord:
        """Begin to create containers; with ``update`` change existing ones to the values asked for, in waves where ``set``
        would do so. Raises FleetError."""
        names: list[str] = []
        turns: dict[str, Planned] = {}
        at_once: list[Planned] = []

        def updating(planned: Sequence[Planned]) -> Mapping[str, Planned]:
            names.extend(to_restart(planned) if ask.start else ())
            turns.update(self._in_turns(planned, names, {}))
            if names or turns:
                self._rollouts.refuse_second()
            at_once.extend(each for each in planned if each.container.name not in turns)
            return turns

        operation = await self._fleet.create(ask, updating)
        try:
            rollout = None if ask.dry_run else await self._begin(at_once, turns, {}, restart=ask.start)
        except FleetError as error:
            raise type(error)(
                f"creating has begun, and goes on, but {error.message}", why=error.why, hint=error.hint
            ) from error  # fmt: skip
        notes = await self._notes([units_of(ask, self._fleet.config)])
        # Debian 12's mypy can't see that CreationRecord extends OperationRecord.
        return cast(CreationRecord, {**operation.record(), "notes": notes, "rollout": rollout["id"] if rollout else None})

    async def _notes(self, asked: Iterable[tuple[str, ...]]) -> list[str]:
        """The notes on obstacles to services of the host's that containers are to run."""
        found = [await services.notes(self._fleet.paths, units) for units in dict.fromkeys(asked) if units]
        return list(dict.fromkeys(note for notes in found for note in notes))


def _again(error: FleetError) -> str:
    """The hint for when only a part of a request was done."""
    return f"{error.hint}{'; ' if error.hint else ''}then repeat the command: all that it has done stays as it is"
