"""The rollout that `rollout undo` takes back, and the containers that it changed.

An undo is a rollout, too. To undo once more means to put back the rest of the first one: to give containers again what
was taken back has to be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from lxcfleet.errors import ErrorBody, NotFound, WrongState
from lxcfleet.patch.rollout.change_sets import ChangeSets
from lxcfleet.patch.rollout.ledger import Ledger
from lxcfleet.patch.rollout.sight import Fleet
from lxcfleet.patch.rollout.state import MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.spec.selection import natural_order
from lxcfleet.units import some

FOLLOW, RESUME = "wait for it (`lxcfleet rollout status --follow`)", "go on with it (`lxcfleet rollout resume`)"
_REDO = "to have them changed again all the same: `lxcfleet rollout undo --redo`"
_NAMED = 5
"""How many containers are named in one message."""


class Undoing:
    """Finds what is undone."""

    def __init__(self, fleet: Fleet, ledger: Ledger, change_sets: ChangeSets) -> None:
        self._fleet, self._ledger, self._sets = fleet, ledger, change_sets

    def find(self, *, redo: bool) -> Rollout:
        """The rollout that is undone. ``redo``: it is to be an undo. Raises WrongState."""
        last = self._ledger.last
        if redo and (last is None or not last.undoes):
            raise WrongState(
                "there is nothing to do again", why="the last rollout undid no other" if last else "there was no rollout",
                hint="`lxcfleet rollout status` shows the last one",
            )  # fmt: skip
        if last is not None and last.undoes and not redo:
            first = self._ledger.before(last.undoes)
            return _rest(last, first, still=first is not None and self._holds(first))
        if last is not None and last.kind is RolloutKind.CHANGE:
            empty = self._is_empty(last)
            if empty or (last.status.ended and not self._holds(last)):
                gone = f"no container has the specs of {last.id} any more: they were changed since, or are gone"
                raise WrongState(
                    f"there is nothing to {'do again' if redo else 'undo'}",
                    why="the last rollout changed no specs" if empty else gone,
                    hint="`lxcfleet set`, or a file to apply, gives them others",
                )  # fmt: skip
            return last
        raise WrongState(
            "there is nothing to undo", why="the last rollout changed no specs" if last else "there was no rollout",
            hint="a patch is taken back on the host (apt install PACKAGE=VERSION), or for containers by `lxcfleet rollback`"
            if last else "what was changed at once is taken back by `lxcfleet set`, or by applying the former file",
        )  # fmt: skip

    def _is_empty(self, last: Rollout) -> bool:
        """Whether it is known that the rollout changes no spec."""
        try:
            return not self._sets.of(last.id).members
        except NotFound:
            return False

    def _holds(self, last: Rollout) -> bool:
        """Whether containers may have specs of this rollout."""
        return bool(self.changed(last) or self.left_out(last))

    def changed(self, last: Rollout) -> list[str]:
        """Those that have the spec of a rollout, and those that get it in this moment, as they are in its wave.

        An undo did not give their specs to those that the other rollout had not reached.
        """
        registry, sets = self._fleet.registry, self._sets
        undone = self._ledger.before(last.undoes) if last.undoes else None
        unreached = {member.name for member in undone.members.values() if member.wave is None} if undone is not None else ()
        under_way = self._ledger.last is last
        begun = {member.name for member in last.by_phase(MemberPhase.RESTARTING)} if under_way else ()
        known = [registry[name] for name in sets.of(last.id).members if name in registry and name not in unreached]
        return [c.name for c in known if sets.has(last.id, c) or (c.name in begun and sets.has_former(last.id, c))]

    def left_out(self, last: Rollout) -> dict[str, ErrorBody]:
        """Those that a rollout may have changed, and that do not get their former specs back, each with the error."""
        registry, found = self._fleet.registry, {}
        for name in self._sets.of(last.id).members:
            member = last.members.get(name)
            if name not in registry or (member is not None and member.phase is MemberPhase.WAITING):
                continue  # it is gone, or its turn has not come
            error = self._sets.untold(last.id, registry[name])
            if error is not None:
                found[name] = error.body()
        return found


def _rest(undo: Rollout, first: Rollout | None, *, still: bool) -> Rollout:
    """The rollout ``first``, which ``undo`` took back: what containers still have of it can be taken back once more.

    ``first``: None if it is not known any more; ``still``: whether there may be such containers. Raises WrongState if there
    are none, or the undo is not over.
    """
    how = " by itself (auto_revert)" if undo.by_itself else ""
    if not undo.status.ended:
        next_step = FOLLOW if undo.status is Status.RUNNING else RESUME
        raise WrongState(
            f"{undo.undoes} is being undone already",
            why=f"{undo.id}, which takes it back{how}, is {undo.status} in wave {undo.wave}",
            hint=f"{next_step}, or end it with `lxcfleet rollout abort`; {_REDO}",
        )  # fmt: skip
    if first is None:
        left = f", but for {names(undo.left_out)}" if undo.left_out else ""
        raise WrongState(
            "there is nothing to undo", why=f"{undo.undoes} was undone{left}, and no more is known of it",
            hint="`lxcfleet rollout status` tells why; `lxcfleet set`, or a file to apply, gives others another spec",
        )  # fmt: skip
    if not still:
        done = undo.status is Status.DONE
        ended = f"took it back{how}" if done else f"was to take it back{how}, and was aborted"
        raise WrongState(
            "there is nothing to undo", why=f"no container has the specs of {first.id} any more: {undo.id} {ended}",
            hint=_REDO,
        )  # fmt: skip
    return first


def names(found: Iterable[str]) -> str:
    """Some of these containers, as a message names them."""
    return some(natural_order(found), _NAMED)
