"""A fleet file for containers that exist: applied to them, it changes nothing. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lxcfleet.fleets.applied import Applied, AppliedGroup
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.merging import init_of, usual
from lxcfleet.spec.container.secrets import SOURCES
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import Volume
from lxcfleet.spec.files.fleet_apps import ROWS as APP_ROWS
from lxcfleet.spec.files.fleet_file import FORMAT
from lxcfleet.spec.files.fleet_volumes import ROWS
from lxcfleet.spec.files.profiles import ROLLOUT
from lxcfleet.spec.files.settings import plain
from lxcfleet.spec.reading.rows import Row
from lxcfleet.spec.reading.strict_yaml import inline
from lxcfleet.spec.reading.types import Size
from lxcfleet.spec.selection import natural_order
from lxcfleet.units import parse_size

HEAD = "# yaml-language-server: $schema=/usr/share/lxcfleet/schema/fleet.schema.json"
"""By this line editors find the schema."""
_GROUP = re.compile("[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_NUMBERED = re.compile(r"(.*[^0-9])([1-9][0-9]*)")


def text(fleet: str, specs: Sequence[Spec], applied: Applied | None, settings: object, volumes: Sequence[Volume] = ()) -> str:
    """The file. ``applied``: the fleet, if its file was applied before; ``volumes``: those that it is to have."""
    by_name = {spec.name: spec for spec in specs if not _surplus(spec, fleet, applied)}
    lines = [HEAD, f"lxcfleet: {FORMAT}", f"fleet: {plain(fleet)}", *_secrets(applied), *_volumes(volumes)]
    lines += [*_apps(applied), "groups:"]
    groups, before = _groups(by_name, fleet), applied.groups if applied is not None else {}
    for group, members in groups.items():
        said = {name: _said(by_name[name], settings) for name in members}
        count = None if members == [group] else len(members)
        lines += _group(group, count, said, before.get(group))
    for group, resting in before.items():
        if resting.now == 0 and group not in groups:
            lines += _group(group, 0, {group: _said_of_file(resting.said)}, resting)
    return "\n".join(lines) + "\n"


def _group(
    group: str, count: int | None, said: Mapping[str, Mapping[str, str]], before: AppliedGroup | None
) -> Iterator[str]:
    """The lines of a group. ``said``: by member, what the file has to say; ``before``: the group as it was applied last."""
    yield f"  {plain(group)}:"
    if count is not None:
        yield f"    count: {count}"
    first = next(iter(said.values()))
    common = {key: value for key, value in first.items() if all(each.get(key) == value for each in said.values())}
    yield from (f"    {key}: {value}" for key, value in common.items())
    if before is not None and (own := ROLLOUT.type.render(before.rollout)):
        yield f"    rollout: {inline(own)}"
    if own_lines := [*_members(said, common)]:
        yield "    members:"
        yield from own_lines


def _secrets(applied: Applied | None) -> Iterator[str]:
    """Where the values of the fleet's secrets come from, as its file said it last."""
    sources = SOURCES.render(applied.secrets) if applied is not None else {}
    if sources:
        yield "secrets:"
    for name, source in sources.items():
        yield f"  {plain(name)}: {plain(source)}"


def _apps(applied: Applied | None) -> Iterator[str]:
    """The lines for apps: the values that the fleet's file said last."""
    apps = applied.apps if applied is not None else {}
    if apps:
        yield "apps:"
    for name, said in apps.items():
        yield f"  {plain(name)}: {{{', '.join(f'{key}: {_written(APP_ROWS[key], said[key])}' for key in said)}}}"


def _volumes(volumes: Sequence[Volume]) -> Iterator[str]:
    if volumes:
        yield "volumes:"
    for volume in volumes:
        said = {key: getattr(volume, key) for key, row in ROWS.items() if getattr(volume, key) != row.default}
        yield f"  {plain(volume.name)}: {{{', '.join(f'{key}: {_written(ROWS[key], said[key])}' for key in said)}}}"


def _surplus(spec: Spec, fleet: str, applied: Applied | None) -> bool:
    """Whether the group has fewer containers by now: its data is kept, and it is not among those that run."""
    group = applied.groups.get(spec.group or "") if applied is not None and spec.fleet == fleet else None
    if group is None or group.now is None:
        return False
    number = spec.name.removeprefix(spec.group or "")
    return number.isdigit() and int(number) > group.now


def _groups(by_name: Mapping[str, Spec], fleet: str) -> dict[str, list[str]]:
    """The names of each group's members. Those whose numbers have gaps are groups of their own."""
    numbered: dict[str, dict[int, str]] = {}
    for name, spec in by_name.items():
        prefix = spec.group if spec.fleet == fleet and spec.group else None
        found = _NUMBERED.fullmatch(name)
        if found is not None and (prefix or found[1]) == found[1] and name != prefix:
            numbered.setdefault(found[1], {})[int(found[2])] = name
    whole = {prefix: found for prefix, found in numbered.items() if sorted(found) == [*range(1, len(found) + 1)]}
    whole = {prefix: found for prefix, found in whole.items() if prefix not in by_name and _GROUP.fullmatch(prefix)}
    taken = {name for found in whole.values() for name in found.values()}
    groups = {name: [name] for name in by_name if name not in taken}
    groups |= {prefix: [found[n] for n in sorted(found)] for prefix, found in whole.items()}
    return {name: groups[name] for name in natural_order(groups)}


def _said(spec: Spec, settings: object) -> dict[str, str]:
    """The values that a file has to say for such a container, by key."""
    values: dict[str, Any] = {}
    for key, row in askable().items():
        value = getattr(spec, key)
        if key not in ("profile", "init") and value != usual(row, settings):
            values[key] = value
    if spec.init is not init_of(values, {}):
        values = {"init": spec.init, **values}
    return {key: _written(askable()[key], value) for key, value in values.items()}


def _written(row: Row, value: Any) -> str:
    if isinstance(row.type, Size) and value and parse_size(row.type.tell(value)) == value:
        return plain(row.type.tell(value))
    return plain(row.render(value))


def _said_of_file(values: Mapping[str, Any]) -> dict[str, str]:
    """The values that a file said of a group of which no container is left to tell."""
    rows = askable()
    usual_init = values.get("init") is init_of({key: value for key, value in values.items() if key != "init"}, {})
    return {key: _written(rows[key], value) for key, value in values.items() if not (key == "init" and usual_init)}


def _members(said: Mapping[str, Mapping[str, str]], common: Mapping[str, str]) -> Iterator[str]:
    for name, each in said.items():
        own = [f"{key}: {value}" for key, value in each.items() if key not in common]
        if own:
            yield f"      {name}: {{{', '.join(own)}}}"
