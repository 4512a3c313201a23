"""The section ``volumes`` of a fleet file: the volumes that are to be there before the containers that mount them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.volumes import Volume, check_volume
from lxcfleet.spec.reading.reader import Fields, Marked
from lxcfleet.spec.reading.rows import Row, read_said, rows_of

KEY = "volumes"
MOST = 1000
"""So many volumes may stand in one file."""
ROWS: Mapping[str, Row] = {key: row for key, row in rows_of(Volume).items() if key in ("size", "labels")}
"""The rows of the keys that a volume may have in a file. All else lxcfleet assigns."""


@dataclass(frozen=True)
class VolumeWish:
    """One volume of the file."""

    name: str
    place: str
    said: Mapping[str, Any] = field(default_factory=dict)
    """Values by key of ``ROWS``."""
    hosts: tuple[str, ...] = ()


def read(top: Fields, hosts: Row) -> dict[str, VolumeWish]:
    """The volumes of a file with these keys, by name. ``hosts``: the row of the key that limits one to some hosts.
    Complaints go to ``top``."""
    section = top.nested(KEY)
    names = section.keys()
    if len(names) > MOST:
        top.complain(KEY, f"these are {len(names)} volumes, and a file may have {MOST}")
        return {}
    found = {}
    for name in names:
        place = section.place(name)
        try:
            check_volume(name)
        except InvalidInput as error:
            section.complain(name, f"{error.message}: {error.why}", place)
        inner = section.nested(name)
        _drop_null_labels(inner)
        said = read_said([*ROWS.values(), hosts], inner)
        inner.close()
        found[name] = VolumeWish(name, place, {key: said[key] for key in ROWS if key in said}, said.get(hosts.key, ()))
    return found


def _drop_null_labels(inner: Fields) -> None:
    if isinstance(inner.raw("labels"), Marked):
        inner.drop_nulls("labels")
