"""The values of a fleet's file that were applied last, and their form on disk. Pure.

A change is what the file says now and did not say then. So what `set` and `scale` changed since stays, as long as the file
says the same as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.merging import init_of
from lxcfleet.spec.container.secrets import SOURCES, SecretSource, sources_from_json
from lxcfleet.spec.files.fleet_apps import ROWS as APP_ROWS
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_groups import Group
from lxcfleet.spec.files.fleet_volumes import ROWS as VOLUME_ROWS
from lxcfleet.spec.files.profiles import ROLLOUT
from lxcfleet.spec.policies.rollout import ProfileRollout
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said, render_said

VERSION = 1


def with_init(said: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were said, with the kind of container that follows from them."""
    return {**said, "init": init_of(said, {})}


@dataclass(frozen=True)
class AppliedGroup:
    """One group, as it was applied last."""

    count: int | None
    """As in the file; None: it has none."""
    now: int | None
    """As it is: what `scale` said last, or else the file."""
    held: int = 0
    """Members up to this number were brought up once. Of these, one that does not run was stopped by somebody."""
    by: str = ""
    """The command that gave it another count than the file, and the time; empty: none did."""
    said: Mapping[str, Any] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rollout: ProfileRollout = field(default_factory=ProfileRollout)

    def of(self, name: str) -> Mapping[str, Any]:
        """The values that the file said of one of its containers."""
        return self.members.get(name, self.said)


@dataclass(frozen=True)
class Applied:
    """A fleet, as it was applied last."""

    fleet: str
    where: str
    """The file's path, as it was given."""
    time: str
    groups: Mapping[str, AppliedGroup] = field(default_factory=dict)
    volumes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The values that the file said of each volume."""
    secrets: Mapping[str, SecretSource] = field(default_factory=dict)
    """Where the values of its secrets come from."""
    apps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The values that the file said of each app."""
    tried: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """By container, the values that applies gave it, or were about to, which did not come to their end: nobody else's."""
    had: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By container, the values that these took the place of."""

    def same(self, other: Applied | None) -> bool:
        """Whether both say the same, whenever and from wherever they were applied."""
        return other is not None and (self.fleet, self.groups, self.volumes, self.secrets, self.apps) == (
            other.fleet, other.groups, other.volumes, other.secrets, other.apps,
        )  # fmt: skip


_TRIED = 8
"""So many tries are remembered of each container."""


def is_tried(tried: Sequence[Mapping[str, Any]], key: str, value: Any) -> bool:
    """Whether a container has a value from one of these tries."""
    return any(key in each and each[key] == value for each in tried)


def while_tried(
    applied: Applied, values: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> Applied:
    """A fleet while an apply gives its containers these values, by name and key, in place of those that they have ``now``."""
    tried = {name: list(each) for name, each in applied.tried.items()}
    had = {name: dict(each) for name, each in applied.had.items()}
    for name, each in values.items():
        before = tried.get(name, [])
        for key in each:
            if key not in had.get(name, {}) or not is_tried(before, key, now[name][key]):
                had.setdefault(name, {})[key] = now[name][key]
        if each and each not in before:
            tried[name] = [*before, each][-_TRIED:]
    return replace(applied, tried=tried, had=had)


def of_group(group: Group, before: AppliedGroup | None) -> AppliedGroup:
    """A group once it is applied."""
    kept = before is not None and before.count == group.count
    now = before.now if kept and before is not None else group.count
    return AppliedGroup(
        group.count, now, 1 if now is None else now, before.by if kept and before is not None else "",
        with_init(group.said), {name: with_init(said) for name, said in group.members.items()}, group.rollout,
    )  # fmt: skip


def of_file(file: FleetFile, before: Applied | None, time: str) -> Applied:
    """A fleet once its file is applied."""
    groups = before.groups if before is not None else {}
    after = {name: of_group(group, groups.get(name)) for name, group in file.groups.items()}
    volumes = {name: wish.said for name, wish in file.volumes.items()}
    apps = {name: wish.said for name, wish in file.apps.items()}
    return Applied(file.fleet, file.where, time, after, volumes, file.secrets, apps)


def to_json(applied: Applied) -> str:
    """The text that ``from_json`` reads."""
    rows = askable()

    def group(each: AppliedGroup) -> dict[str, Any]:
        return {
            "count": each.count,
            "now": each.now,
            "held": each.held,
            "by": each.by,
            "said": render_said(rows, each.said),
            "members": {name: render_said(rows, said) for name, said in each.members.items()},
            "rollout": ROLLOUT.type.render(each.rollout),
        }

    groups = {name: group(each) for name, each in applied.groups.items()}
    data: dict[str, Any] = {
        "version": VERSION, "fleet": applied.fleet, "where": applied.where, "time": applied.time, "groups": groups,
    }  # fmt: skip
    if applied.volumes:
        data["volumes"] = {name: render_said(VOLUME_ROWS, said) for name, said in applied.volumes.items()}
    if applied.apps:
        data["apps"] = {name: render_said(APP_ROWS, said) for name, said in applied.apps.items()}
    if applied.tried:
        data["tried"] = {name: [render_said(rows, said) for said in each] for name, each in applied.tried.items()}
    if applied.had:
        data["had"] = {name: render_said(rows, said) for name, said in applied.had.items()}
    if applied.secrets:
        data["secrets"] = SOURCES.render(applied.secrets)
    return json.dumps(data, indent=1) + "\n"


def from_json(text: str) -> Applied:
    """The fleet as ``to_json`` wrote it, by this version or a former one. Raises ValueError."""
    data: dict[str, Any] = ondisk.parse(text)
    try:
        if data["version"] != VERSION:
            raise ValueError(f"it was written by another version: {data['version']!r}")
        groups = {name: _group(each) for name, each in data["groups"].items()}
        volumes = {
            name: read_said(VOLUME_ROWS.values(), Fields(said, "", [])) for name, said in data.get("volumes", {}).items()
        }
        apps = {name: read_said(APP_ROWS.values(), Fields(said, "", [])) for name, said in data.get("apps", {}).items()}
        secrets = sources_from_json(data.get("secrets"))
        tried = {name: [_said(said) for said in each] for name, each in data.get("tried", {}).items()}
        had = {name: _said(said) for name, said in data.get("had", {}).items()}
        return Applied(
            str(data["fleet"]), str(data["where"]), str(data["time"]), groups, volumes, secrets, apps, tried, had
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it is no record of a fleet: {error!r}") from error


def _said(raw: object) -> dict[str, Any]:
    # What a version can't read, it can't carry out either: the file says it anew.
    return read_said(askable().values(), Fields(raw, "", []))


def _group(data: Mapping[str, Any]) -> AppliedGroup:
    rollout = Fields({ROLLOUT.key: data["rollout"]}, "", [])
    return AppliedGroup(
        count=data["count"],
        now=data["now"],
        held=data["held"],
        by=data["by"],
        said=_said(data["said"]),
        members={name: _said(each) for name, each in data["members"].items()},
        rollout=ROLLOUT.read(rollout) if data["rollout"] else ProfileRollout(),
    )
