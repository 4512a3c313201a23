"""The containers that may go down together: the next wave of a rollout. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lxcfleet.patch.rollout.state import Fleet, LiveState, Member, MemberPhase, Rollout


@dataclass(frozen=True)
class WaveBlocked:
    """Nothing may be restarted at the moment."""

    container: str
    why: str


def next_wave(rollout: Rollout, seen: Fleet) -> tuple[str, ...] | WaveBlocked:
    """The next wave of the waiting members; ``decide`` calls this only if no wave is under way.

    All members of a wave have the same priority, and none of them waits for one that is still to be restarted: whatever its
    priority, a container comes after those that it depends on. The size of a wave is the number that may be down at once,
    less those that are down already. Canaries are members that an earlier patch of the same rollout made ill or took down,
    as restarting them costs nothing; otherwise they are healthy ones, if there are any.
    """
    waiting = rollout.by_phase(MemberPhase.WAITING)
    names = {member.name for member in waiting}
    # Who waits for each other in a circle waits for nobody.
    free = [m for m in waiting if names.isdisjoint(seen[m.name].awaited)] or waiting
    level = [member for member in free if member.priority == free[0].priority]
    ready = [m for m in level if seen[m.name].busy is None and (m.live or not seen[m.name].lack)]
    if not ready:
        now = seen[level[0].name]
        return WaveBlocked(level[0].name, f"it is busy: {now.busy}" if now.busy else f"it could not start again: {now.lack}")
    if chosen := _canaries(rollout, seen, ready):
        return chosen
    limits = _Limits(rollout, seen)
    return limits.take(ready) or limits.blocked


def _canaries(rollout: Rollout, seen: Fleet, ready: Sequence[Member]) -> tuple[str, ...]:
    """Those of these that go first: so many of each crew that was not tried yet, and of those that are in none. Whoever else
    is in the wave's turn waits for them."""
    limits, chosen = _Limits(rollout, seen), list[str]()
    for crew in dict.fromkeys(member.crew for member in ready):
        most = 0 if rollout.tried(crew) else rollout.canaries(crew).of(limits.size(crew))
        expected = [member for member in ready if member.crew == crew and limits.counts(member)]
        well = [member for member in expected if seen[member.name].healthy]
        victims = [member for member in expected if member.victim and not seen[member.name].healthy]
        chosen += limits.take(victims or well or expected, most)
    return tuple(chosen)


class _Limits:
    """How many more containers may go down, by group."""

    def __init__(self, rollout: Rollout, seen: Fleet) -> None:
        self._rollout = rollout
        self._seen = seen
        members = [m for m in rollout.members.values() if m.name in seen]
        left = [m for m in members if m.phase is not MemberPhase.SKIPPED]
        # If all are ill, all count, so that they don't go down all at once either.
        counted = [m for m in left if m.expected] or left
        self._counted = {m.name for m in counted}
        self._crews = [m.crew for m in counted]
        total = len(counted)
        self._down = [m.name for m in counted if not seen[m.name].healthy]
        self._places = rollout.policy.max_unavailable.of(total)
        self._budget = self._places - len(self._down)
        self._pools = {
            pool: share.of(sum(m.pool == pool for m in counted))
            - sum(m.pool == pool for m in counted if not seen[m.name].healthy)
            for pool, share in rollout.pools.items()
        }
        self._size: dict[tuple[str, str], int] = {}
        self._alive: dict[tuple[str, str], int] = {}
        for name, now in seen.items():
            for group in self._groups(now):
                self._size[group] = self._size.get(group, 0) + (now.healthy or name in self._counted)
                self._alive[group] = self._alive.get(group, 0) + now.healthy
        self.blocked = WaveBlocked("", "")

    def _groups(self, now: LiveState) -> list[tuple[str, str]]:
        keys = self._rollout.policy.groups
        return [(key, value) for key, value in now.labels.items() if "*" in keys or key in keys]

    def counts(self, member: Member) -> bool:
        """Whether the member counts against the limits."""
        return member.name in self._counted

    def size(self, crew: str | None) -> int:
        """How many members of a crew count, or of those in none."""
        return self._crews.count(crew)

    def take(self, candidates: Sequence[Member], most: int | None = None) -> tuple[str, ...]:
        """As many of them as may go down together, in their order, and no more than ``most``."""
        return tuple(itertools.islice((member.name for member in candidates if self._may(member)), most))

    def _may(self, member: Member) -> bool:
        now, counts = self._seen[member.name], self.counts(member)
        if counts and self._places < 1:
            return self._refuse(member.name, "the wave is full")
        if not now.healthy:  # it counts as down already, or does not count at all
            self._places -= counts
            return True
        if counts:
            if self._budget < 1:
                return self._refuse(member.name, self._why_full())
            if member.pool is not None and self._pools[member.pool] < 1:
                kind = "group" if "/" in member.pool else "profile"
                return self._refuse(member.name, f"no more of the {kind} {member.pool} may be down")
        for group in self._groups(now):
            if self._size[group] > 1 and self._alive[group] < 2:
                return self._refuse(member.name, f"none with the label {'='.join(group)} would be healthy")
        if counts:
            self._places -= 1
            self._budget -= 1
            if member.pool is not None:
                self._pools[member.pool] -= 1
        for group in self._groups(now):
            self._alive[group] -= 1
        return True

    def _why_full(self) -> str:
        ill = self._down[0] if self._down else ""
        reason = f": {self._seen[ill].reason}" if ill and self._seen[ill].reason else ""
        others = f" and {len(self._down) - 1} more are" if len(self._down) > 1 else " is"
        return f"no more may be down, as {ill}{others} not healthy{reason}" if ill else "no more may be down"

    def _refuse(self, name: str, why: str) -> bool:
        if not self.blocked.container:
            self.blocked = WaveBlocked(name, why)
        return False
