"""Layers of a fleet file: what a profile, a group or a member says for itself, before they are merged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.files import env_file
from lxcfleet.spec.files.fleet_sources import ENV_FILES as ENV_FILES_KEY
from lxcfleet.spec.files.fleet_sources import Sources, in_order
from lxcfleet.spec.files.profiles import rows as rows_of_profiles
from lxcfleet.spec.reading.names import LONGEST_GLOB, MAX_COUNT
from lxcfleet.spec.reading.reader import Fields, Marked, did_you_mean
from lxcfleet.spec.reading.rows import Row, read_said
from lxcfleet.spec.reading.types import Texts, Whole


class _Globs(Texts):
    """A list of globs."""

    def read(self, fields: Fields, key: str) -> tuple[str, ...]:
        """See ValueType."""
        globs = super().read(fields, key)
        for each in globs:
            if len(each) > LONGEST_GLOB:
                fields.complain(key, f"the glob {each[:40]}… is too long: it may have {LONGEST_GLOB} characters")
        return globs


COUNT = Row(
    Whole(0, MAX_COUNT), "How many containers the group has: NAME1 to NAMEn. Without it, one of its own name.", key="count"
)
PROFILES = Row(Texts(), "Profiles, the last on top: those of this file, of profiles.d and of the settings.", key="profiles")
HOSTS = Row(
    _Globs(), "Globs of names of hosts: on other hosts the group does not exist. Without it, it is on all of them.",
    key="hosts",
)  # fmt: skip
ENV_FILES = Row(
    Texts(), "Files with NAME=VALUE lines, read when the fleet file is applied; `environment` beside it comes first. A"
    " relative path begins where the fleet file is.", key=ENV_FILES_KEY,
)  # fmt: skip
OWN: Mapping[str, Row] = {row.key: row for row in (COUNT, PROFILES, HOSTS, ENV_FILES)}
"""Keys of groups that containers do not have. ``env_files`` may stand in profiles and members, too."""

MOST = 500
"""So many complaints are enough."""
MAX_MERGED = 300_000
"""The most values of groups and members once layers are merged, and of env_files: a file may say a thing once and mean it for
thousands of members, each of which has all of it then."""
_SUGGESTED = 20
"""So many unknown keys get the name of one that is like them, as to find it takes long."""
OTHERWISE: Mapping[str, str] = {
    "autoscale": "lxcfleet scales nothing by itself: `lxcfleet scale GROUP N` does it, by hand or from a timer, and the count"
    " that it gives stays until the file has another one",
    "base": "write `generation: N`, or leave it out for the host's root; `lxcfleet generation hold` says until when",
    "stop": "write `stop_signal` and `stop_timeout`",
}  # fmt: skip
"""Keys that people may look for here, and that there are not, with what does it or something like it."""


def container_rows() -> Mapping[str, Row]:
    """The keys that profiles, groups and members may have alike."""
    return rows_of_profiles()


class Layers:
    """Reads the layers of one file."""

    def __init__(self, sources: Sources, complaints: list[str]) -> None:
        self._sources, self._complaints = sources, complaints
        self._rows = container_rows()
        self._merged = 0

    def spend(self, values: int, place: str) -> None:
        """Count values that are about to be merged. Raises InvalidInput if these are more than any file needs."""
        self._merged += values
        if self._merged > MAX_MERGED:
            why = f"{place}: profiles, groups, members and env_files have more than {MAX_MERGED} values in all"
            raise InvalidInput("", why="\n".join([*in_order(self._complaints)[:MOST], why]))

    def read(self, outer: Fields, key: str, own: Iterable[str] = ()) -> Marked:
        """The values of a profile, group or member, without its own keys; each value is checked by itself."""
        raw = outer.raw(key)
        inner = outer.nested(key)
        if not isinstance(raw, Marked):
            return Marked(outer.place(key))
        layer = raw.copy()
        for name in own:
            layer.pop(name, None)
        self._add_env_files(inner, layer)
        for row in self._rows.values():
            said = layer.get(row.key)
            if isinstance(said, Marked):
                self._check_nulls(inner, row, said)
                inner.drop_nulls(row.key)
        checked = [row for row in self._rows.values() if row.type.whole]
        read_said(checked, inner)
        for row in self._rows.values():
            if not row.type.whole and inner.has(row.key):
                inner.skip(row.key)  # it may be a part, which is checked once all layers are merged
        inner.skip(*own)
        self.close(inner, {*self._rows, *own})
        return layer

    def _add_env_files(self, fields: Fields, layer: Marked) -> None:
        """Have the variables of env_files below those of ``environment`` in the same layer."""
        layer.pop(ENV_FILES.key, None)
        place = fields.place(ENV_FILES.key)
        names = fields.texts(ENV_FILES.key)
        found = Marked(place)
        for name in names:
            text = self._sources.files.get(name)
            if text is None:
                fields.complain(ENV_FILES.key, f"{name}: {self._sources.missing.get(name, 'it was not sent')}", place)
                continue
            self.spend(text.count("\n"), place)
            for key, value, line in env_file.read(text, name, self._complaints.append):
                found.put(key, value, f"{name}:{line}")
        own = layer.get("environment")
        if found and (own is None or isinstance(own, Marked)) and ("environment" not in layer or own is not None):
            for key, value in (own or {}).items():
                found.put(key, value, own.places[key] if isinstance(own, Marked) else place)
            layer.put("environment", found, layer.places.get("environment", place))

    def _check_nulls(self, fields: Fields, row: Row, said: Marked) -> None:
        """Complain of unknown keys without a value in a value: nothing is left of them by the time it is read."""
        nulls = [key for key, value in said.items() if value is None]
        shape = row.schema(part=True) if nulls else {}
        if shape.get("additionalProperties") is not False:
            return
        known = shape["properties"]
        for number, key in enumerate(each for each in nulls[:MOST] if each not in known):
            fields.complain(f"{row.key}: {key}", _unknown(key, known, number), said.places[key])

    def close(self, fields: Fields, known: Iterable[str]) -> None:
        """Complain of what is left of a mapping."""
        for number, key in enumerate(fields.keys()):
            if number > MOST:
                return
            if key in OTHERWISE:
                fields.complain(key, f"there is no such key: {OTHERWISE[key]}")
            else:
                fields.complain(key, _unknown(key, known, number))


def _unknown(key: str, known: Iterable[str], number: int) -> str:
    """The complaint about an unknown key. ``number``: how many of the same mapping were complained of before."""
    return "unknown key" + (did_you_mean(key, known, number) if number < _SUGGESTED else "")


def size_of(values: Mapping[str, Any]) -> int:
    """How many values these are, with those of lists and mappings."""
    return sum(1 + (len(value) if isinstance(value, Mapping | list | tuple) else 0) for value in values.values())
