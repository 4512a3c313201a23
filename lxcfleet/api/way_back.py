"""A rollout that takes another one back: which containers have their former values, as far as its record tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lxcfleet.errors import ErrorBody, WrongState
from lxcfleet.spec.selection import natural_order
from lxcfleet.units import some

if TYPE_CHECKING:
    from lxcfleet.api.records import RolloutMemberRecord, RolloutRecord

_NAMED = 5
"""How many containers are named in one message."""

_HOW: Mapping[str, str] = {
    "done": "{what} are put back",
    "halted": "putting {what} back halted, too",
    "aborted": "putting {what} back was aborted",
}
"""By the status of the rollout that puts them back."""

_NEXT: Mapping[str, str] = {
    "halted": "once that is mended: lxcfleet rollout resume",
    "paused": "go on with it: lxcfleet rollout resume",
    "running": "it goes on: lxcfleet rollout status --follow",
}
_REST = "to have the rest put back: lxcfleet rollout undo"


def in_words(record: RolloutRecord, what: str) -> str:
    """How far ``what``, such as the former values, are put back: the end of a sentence about a rollout that has halted."""
    told = _HOW.get(record["status"], "{what} are being put back").format(what=what)
    members = record["containers"]
    without = {*record["left_out"], *(each["name"] for each in members if _not_begun(each))}
    unsure = [each["name"] for each in members if not _not_begun(each) and each["phase"] != "done"]
    if without and record["status"] == "done":
        told += f", but for {some(natural_order(without), _NAMED)}"
    elif without:
        told += f"; without them still: {some(natural_order(without), _NAMED)}"
    if unsure:
        told += f"; not well with them, or not known to be: {some(natural_order(unsure), _NAMED)}"
    return told


def lack(record: RolloutRecord, name: str) -> ErrorBody | None:
    """Why it can't be said that a container has its former values back, and is well; None: it can."""
    if name in record["left_out"]:
        return record["left_out"][name]
    member = next((each for each in record["containers"] if each["name"] == name), None)
    if member is None or (member["phase"] == "done" and not _not_begun(member)):
        return None
    halted = record["halted"]
    why = f"the rollout {record['id']}, which takes {record['undoes']} back, is {record['status']}"
    if halted is not None:
        why += f"{' at ' + halted['container'] if halted['container'] else ''}: {halted['why']}"
    if _not_begun(member):
        how = f"it did not get its former values back{': ' if member['note'] else ''}{member['note']}"
    else:
        how = member["note"] or f"with its former values it is {member['phase']}"
    return WrongState(f"{name}: {how}", why=why, hint=_NEXT.get(record["status"], _REST)).body()


def _not_begun(member: RolloutMemberRecord) -> bool:
    """Whether it has the values still that are taken back, unless somebody else changed it."""
    return member["wave"] is None or member["phase"] == "waiting"
