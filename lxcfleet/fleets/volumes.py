"""The changes that a fleet file would make to volumes. Pure.

A volume that the file has is made if it is missing, and gets another size or other labels if the file says others than it
has. One that exists already, whoever made it, is the one that is meant. None is ever removed for a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import Conflict, FleetError, InvalidInput
from lxcfleet.fleets.applied import Applied
from lxcfleet.spec.container.volumes import Volume
from lxcfleet.spec.files.fleet_volumes import ROWS, VolumeWish
from lxcfleet.spec.reading.rows import rows_of


@dataclass(frozen=True)
class VolumeChange:
    """One volume that is made or changed."""

    name: str
    new: bool
    values: Mapping[str, Any]
    """The values that it has then, by key: its size and its labels."""
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """By key, the value that it has and the one that it gets, in words."""


def plan_volumes(
    wishes: Mapping[str, VolumeWish],
    applied: Applied | None,
    others: Sequence[Applied],
    present: Mapping[str, Volume | FleetError],
) -> tuple[VolumeChange, ...]:
    """The changes for the volumes of a file. ``present``: those that exist, an error for one that is broken. Raises Conflict
    and InvalidInput with all that is in the way."""
    shared = [
        f"{wishes[name].place}: the volume {name} stands in the file of the fleet {other.fleet}, too ({other.where})"
        for other in others
        for name in other.volumes
        if name in wishes
    ]
    if shared:
        raise Conflict(
            "two fleets have a volume of the same name", why="\n".join(shared),
            hint="leave it in one of the files: containers of the other one can mount it all the same",
        )  # fmt: skip
    broken = [f"{wishes[name].place}: {error.message}" for name, error in present.items() if isinstance(error, FleetError)]
    if broken:
        raise InvalidInput("the file can't be applied; nothing is changed", why="\n".join(broken))
    before = {} if applied is None else applied.volumes
    changes = (_change(wish, before.get(wish.name, {}), present.get(wish.name)) for wish in wishes.values())
    return tuple(change for change in changes if change is not None)


def _change(wish: VolumeWish, before: Mapping[str, Any], now: Volume | FleetError | None) -> VolumeChange | None:
    rows = rows_of(Volume)
    has = {key: getattr(now, key) if isinstance(now, Volume) else rows[key].default for key in ROWS}
    # What the file does not mention stays as it is, unless the file said it until now.
    wants = {key: wish.said.get(key, rows[key].default if key in before else has[key]) for key in ROWS}
    new = not isinstance(now, Volume)
    differs = {key: (rows[key].tell(has[key]), rows[key].tell(wants[key])) for key in ROWS if has[key] != wants[key]}
    return VolumeChange(wish.name, new, wants, differs) if new or differs else None
