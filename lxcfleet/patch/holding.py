"""The requests about holds: to hold containers where they stand, and to release them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from lxcfleet.api.generations import HoldRequest, HoldsRecord, ReleasedRecord, ReleaseRequest
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import HostError, InvalidInput, WrongState
from lxcfleet.patch.holds import Holds, today
from lxcfleet.patch.rescued import Rescued
from lxcfleet.spec.selection import Selection
from lxcfleet.units import some

_NAMED = 5


def check_until(until: str) -> date:
    """The last day of a hold; raises InvalidInput for one that is over."""
    day = date.fromisoformat(until)
    if day < today():
        raise InvalidInput(f"{until} is past", hint="name the last day on which they are to be held, or a time such as 30d")
    return day


class Holding:
    """Holds containers, and releases them."""

    def __init__(self, registry: Registry, holds: Holds, rescued: Rescued) -> None:
        self._registry, self._holds, self._rescued = registry, holds, rescued

    async def hold(self, ask: HoldRequest) -> HoldsRecord:
        """Hold the chosen containers on the generations that they stand on, all or none of them. Raises FleetError."""
        day = check_until(ask.until)
        chosen = await self._choose(ask.selection, ask.number)
        standing = {each.name: each.wanted.generation for each in chosen if each.wanted is not None}
        to = f"--until {ask.until}"
        if live := [name for name, number in standing.items() if not number] + _broken(chosen):
            raise WrongState(
                f"{some(live, _NAMED)} can't be held", why="a container on the host's root follows its patches",
                hint=f"lxcfleet rollback {' '.join(live[:_NAMED])} {to} gives them a generation, and holds them",
            )  # fmt: skip
        before = self._holds.among(chosen)
        changed = [
            name for name in standing if name not in before or (before[name].until, before[name].why) != (ask.until, ask.why)
        ]
        if changed and not ask.dry_run:
            self._holds.hold({name: standing[name] for name in changed}, day, ask.why)
        held = self._holds.among(chosen)
        records = [held[name].record(name, today()) for name in standing if name in held]
        return {"changed": bool(changed), "dry_run": ask.dry_run, "chosen": [*standing], "held": records}

    async def release(self, ask: ReleaseRequest) -> ReleasedRecord:
        """Have the chosen containers go along with the next patch that goes well. Raises FleetError."""
        chosen = await self._choose(ask.selection, ask.number)
        standing = {each.name: each.wanted.generation for each in chosen if each.wanted and each.wanted.generation}
        known, held = self._rescued.all(), self._holds.among(chosen)
        released = [name for name, number in standing.items() if name in held or known.get(name) != number]
        if released and not ask.dry_run:
            try:
                self._rescued.keep({**known, **{name: standing[name] for name in released}})
            except OSError as error:
                raise HostError.from_os_error("it can't be noted what is released", error) from error
            self._holds.forget(released)
        return {"changed": bool(released), "dry_run": ask.dry_run, "released": released}

    async def _choose(self, selection: Selection, number: int | None) -> Sequence[Container]:
        await self._registry.observe()
        if number is None:
            return self._registry.choose(selection)
        found = [each for each in self._registry if each.wanted is not None and each.wanted.generation == number]
        if not found:
            raise WrongState(
                f"no container stands on generation {number}", why="only containers are held, and not generations",
                hint="`lxcfleet generation list` shows who stands on which one",
            )  # fmt: skip
        return found


def _broken(chosen: Sequence[Container]) -> list[str]:
    return [each.name for each in chosen if each.wanted is None]
