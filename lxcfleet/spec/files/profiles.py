"""Profiles: named sets of defaults, in the settings and in files beside them, for new containers and for fleet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.policies.rollout import ProfileRollout
from lxcfleet.spec.policies.rollout_tests import WhereTested
from lxcfleet.spec.reading import marked_yaml, ondisk
from lxcfleet.spec.reading.reader import Fields, Marked
from lxcfleet.spec.reading.rows import Row, SectionType, read_said, render_said, schema_of
from lxcfleet.spec.reading.types import ValueType

ROLLOUT = Row(SectionType(ProfileRollout), "How its containers take part in rollouts; see below.", key="rollout")


@dataclass(frozen=True)
class Profile:
    """Defaults that ``create --profile NAME`` takes over; the command line's values come first."""

    said: Mapping[str, Any] = field(default_factory=dict)
    """Values by key of the table, ``spec.container.fields``."""
    rollout: ProfileRollout = field(default_factory=ProfileRollout)
    problems: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """Fields of the profile that don't go together, each with its key and the reason. No container can be created with
    such a profile."""
    raw: Marked = field(default_factory=Marked, compare=False, repr=False)
    """The values in the form of the file, with the place of each key: fleet files merge these."""


def rows() -> Mapping[str, Row]:
    """The rows of the keys that a profile may have."""
    return {**askable(profile=True), ROLLOUT.key: ROLLOUT}


def host_commands(profiles: Mapping[str, Profile]) -> frozenset[tuple[str, ...]]:
    """The commands of the host that tests of these profiles name. Those of the settings are root's words; what comes by the
    API is not."""
    tests = [each for profile in profiles.values() for each in profile.rollout.tests or ()]
    return frozenset(each.run for each in tests if each.where is WhereTested.HOST)


def foreign_commands(rollout: ProfileRollout, profiles: Mapping[str, Profile]) -> Iterator[str]:
    """A complaint for each test with a command of the host that none of these profiles has."""
    known = host_commands(profiles)
    for test in rollout.tests or ():
        if test.where is WhereTested.HOST and test.run not in known:
            yield (
                f"{test.name}: only a profile of the settings may name a command of the host; the group can have that profile"
            )


class ProfilesType(ValueType[Mapping[str, Profile]]):
    """How the mapping of all profiles is read and written."""

    def read(self, fields: Fields, key: str) -> Mapping[str, Profile]:
        """See ValueType."""
        profiles = fields.nested(key)
        return {name: read(profiles.nested(name)) for name in profiles.keys()}

    def parse(self, text: str) -> Mapping[str, Profile]:
        """See ValueType."""
        raise InvalidInput(f"{text!r} can't stand for profiles")

    @property
    def form(self) -> str:
        """See ValueType."""
        return "a mapping of names to mappings"

    def schema(self) -> dict[str, Any]:
        """See ValueType."""
        one = schema_of(rows().values())
        return {"type": "object", "additionalProperties": {**one, "type": ["object", "null"]}}

    def render(self, value: Mapping[str, Profile]) -> dict[str, Any]:
        """See ValueType."""
        return {name: _render(profile) for name, profile in value.items()}


def _render(profile: Profile) -> dict[str, Any]:
    own = {} if profile.rollout == ProfileRollout() else {ROLLOUT.key: profile.rollout}
    return render_said(rows(), {**profile.said, **own})


def read(fields: Fields) -> Profile:
    """The profile that ``fields`` has; complaints go there."""
    said = read_said(rows().values(), fields)
    fields.close()
    own = said.pop(ROLLOUT.key, ProfileRollout())
    return Profile(said, own, tuple(f"{key}: {problem}" for key, problem in combinations.of_profile(said)))


def with_places(profiles: Mapping[str, Profile], text: bytes, where: str) -> dict[str, Profile]:
    """The profiles of the settings in ``text``, with the place of each key."""
    try:
        found = marked_yaml.load(text, where, lambda _: None).get("profiles")
    except InvalidInput:  # valid settings may be larger than that reader takes
        found = None
    raws = found if isinstance(found, Marked) else Marked()
    return {name: replace(each, raw=raws.get(name) or _marked(_render(each), where)) for name, each in profiles.items()}


def _marked(values: Mapping[str, Any], where: str) -> Marked:
    made = Marked(where)
    for key, value in values.items():
        made.put(key, _marked(value, where) if isinstance(value, dict) else value, where)
    return made


def load_directory(directory: Path, complain: Callable[[str], object]) -> dict[str, Profile]:
    """The profiles in ``directory``: NAME.yaml has the keys of the profile NAME. Raises OSError."""
    found: dict[str, Profile] = {}
    for file in sorted(directory.glob("*.yaml")):
        complaints: list[str] = []
        try:
            raw = marked_yaml.load(ondisk.content(file, ondisk.SMALL), str(file), complaints.append)
            found[file.stem] = replace(read(Fields(raw, "", complaints)), raw=raw)
        except InvalidInput as error:
            complaints += error.why.splitlines()
        for each in complaints:
            complain(each)
    return found
