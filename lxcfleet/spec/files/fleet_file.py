"""The fleet as a file: what it says of each container, read strictly, with all complaints at once. Pure.

The file has groups. A group with a count stands for that many containers, NAME1 to NAMEn; without one it is a single
container of that very name. What a group says is merged with its profiles, and with what its members say for themselves,
by the rule of ``layering``. All keys about containers come from the table of fields.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.merging import init_of, merged
from lxcfleet.spec.container.secrets import SOURCES, SecretSource
from lxcfleet.spec.files import fleet_apps, fleet_volumes, layering
from lxcfleet.spec.files.fleet_apps import AppWish
from lxcfleet.spec.files.fleet_groups import Group, circles, collisions, fits
from lxcfleet.spec.files.fleet_layers import COUNT, ENV_FILES, HOSTS, MOST, OWN, PROFILES, Layers, container_rows, size_of
from lxcfleet.spec.files.fleet_sources import Sources, in_order
from lxcfleet.spec.files.fleet_volumes import VolumeWish
from lxcfleet.spec.files.profiles import ROLLOUT, Profile, foreign_commands
from lxcfleet.spec.policies.rollout import ProfileRollout
from lxcfleet.spec.reading import marked_yaml
from lxcfleet.spec.reading.names import MAX_COUNT, check_name
from lxcfleet.spec.reading.reader import Fields, Marked
from lxcfleet.spec.reading.rows import read_said

FORMAT = 1
"""The version of the format."""

SECRETS = "secrets"
"""The section with the sources of secrets."""
TOP = ("lxcfleet", "fleet", SECRETS, fleet_volumes.KEY, fleet_apps.KEY, "profiles", "groups")
"""The keys of the file itself."""
MAX_HELD = 1_000_000
"""The most values of all containers together."""
_OWNER = re.compile(": (groups|profiles): [^:]*(: members: [^:]*)?")


@dataclass(frozen=True)
class FleetFile:
    """The whole file."""

    fleet: str
    where: str
    groups: Mapping[str, Group]
    volumes: Mapping[str, VolumeWish] = field(default_factory=dict)
    secrets: Mapping[str, SecretSource] = field(default_factory=dict)
    """Where the values of its secrets come from."""
    apps: Mapping[str, AppWish] = field(default_factory=dict)

    def on(self, host: str) -> FleetFile:
        """The part that is about a host of that name."""
        here = {name: group for name, group in self.groups.items() if group.is_on(host)}
        volumes = {name: wish for name, wish in self.volumes.items() if fits(wish.hosts, host)}
        apps = {name: wish for name, wish in self.apps.items() if fits(wish.hosts, host)}
        return FleetFile(self.fleet, self.where, here, volumes, self.secrets, apps)


def parse(sources: Sources, settings: Any) -> FleetFile:
    """The fleet file; ``settings`` (a ``Config``) have further profiles, and defaults. Raises InvalidInput with all
    that is wrong, each with its line."""
    complaints: list[str] = []
    message = f"{sources.where} is not valid; nothing is changed"
    try:
        data = marked_yaml.load(sources.text.encode("utf-8", "surrogatepass"), sources.where, complaints.append)
        top = Fields(data, "", complaints)
    except InvalidInput as error:
        raise InvalidInput(message, why=error.why) from error
    if not top.has("lxcfleet"):
        top.complain("lxcfleet", f"is missing: write `lxcfleet: {FORMAT}`, the version of the format", f"{sources.where}:1")
    elif top.integer("lxcfleet", FORMAT, 0, 1_000_000) != FORMAT:
        top.complain("lxcfleet", f"the file has another version of the format; this lxcfleet reads version {FORMAT}")
        raise InvalidInput(message, why="\n".join(complaints))
    try:
        file = _Reader(sources, settings, complaints).read(top)
    except InvalidInput as error:
        raise InvalidInput(message, why=error.why) from error
    if complaints:
        raise InvalidInput(message, why="\n".join(in_order(complaints)))
    return file


class _Reader:
    """Reads one file."""

    def __init__(self, sources: Sources, settings: Any, complaints: list[str]) -> None:
        self._sources, self._settings, self._complaints = sources, settings, complaints
        self._rows = container_rows()
        self._rule = layering.LayeringRule(self._rows)
        self._profiles: dict[str, Marked] = {}
        self._apps: Mapping[str, AppWish] = {}
        self._told: set[str] = set()
        """Mistakes that were complained of, as far as ``_looked`` says."""
        self._looked = 0
        self._layers = Layers(sources, complaints)

    def read(self, top: Fields) -> FleetFile:
        """The file with these keys."""
        if not top.has("fleet"):
            top.complain("fleet", "is missing: the name of the fleet that owns all of this file", f"{self._sources.where}:1")
        fleet = top.text("fleet")
        self._check_name(top, "fleet", fleet)
        given: Mapping[str, Profile] = self._settings.profiles
        self._profiles = {name: profile.raw for name, profile in given.items()}
        volumes = fleet_volumes.read(top, HOSTS)
        secrets = SOURCES.read(top, SECRETS)
        self._apps = fleet_apps.read(top, HOSTS)
        profiles = top.nested("profiles")
        for name in profiles.keys():
            self._profiles[name] = self._layers.read(profiles, name, {ENV_FILES.key})
        groups = top.nested("groups")
        found = {}
        for name in groups.keys():
            found[name] = self._group(groups, name)
            if len(self._complaints) > MOST:
                raise InvalidInput("", why="\n".join([*in_order(self._complaints)[:MOST], "and more"]))
        self._layers.close(top, TOP)
        total = sum(1 if group.count is None else group.count for group in found.values())
        if total > MAX_COUNT:
            top.complain("groups", f"these are {total} containers, and a fleet may have {MAX_COUNT}")
        else:
            self._complaints += [*collisions(found), *circles(found)]
        held = sum(size_of(each.of(name)) for each in found.values() for name in each.names(each.count)[:MAX_COUNT])
        if held > MAX_HELD:
            top.complain("groups", f"their containers have {held} values in all, and may have {MAX_HELD}")
        self._check_secrets(found, {*secrets, *self._settings.secrets})
        self._check_tests(found)
        return FleetFile(fleet, self._sources.where, found, volumes, secrets, self._apps)

    def _check_secrets(self, groups: Mapping[str, Group], known: set[str]) -> None:
        """Complain of secrets that neither the file nor the settings declare."""
        for group in groups.values():
            for member, said in {"": group.said, **group.members}.items():
                merged = group.merged_members.get(member, group.merged)
                for use in said.get("secrets", ()):
                    if use.secret not in known:
                        self._complaints.append(
                            f"{merged.places.get('secrets', group.place)}: groups: {group.name}: secrets: {use.secret} is"
                            " declared neither in the section secrets of this file nor in the settings of the host"
                        )

    def _check_tests(self, groups: Mapping[str, Group]) -> None:
        """Complain of commands of the host that no profile of the settings has."""
        for group in groups.values():
            for why in foreign_commands(group.rollout, self._settings.profiles):
                place = group.merged.places.get(ROLLOUT.key, group.place)
                self._complaints.append(f"{place}: groups: {group.name}: rollout: tests: {why}")

    def _check_name(self, fields: Fields, key: str, name: str) -> None:
        try:
            if name:
                check_name(name)
        except InvalidInput as error:
            fields.complain(key, f"{error.message}: {error.why}")

    def _group(self, groups: Fields, name: str) -> Group:
        self._check_name(groups, name, name)
        place = groups.place(name)
        raw = groups.raw(name)
        head = Fields(raw, f"groups: {name}", self._complaints, place) if isinstance(raw, Marked) else None
        own_layer = self._layers.read(groups, name, {*OWN, "members"})
        if head is None:
            return Group(name, place, None, {})
        counted = head.has("count")
        said = read_said([COUNT, PROFILES, HOSTS], head)
        count = said.get("count")
        if count is not None and name[-1:].isdigit():
            head.complain("count", f"the name of a group with a count can't end in a digit: its members are {name}1, …")
        layers = self._of_profiles(head, said.get("profiles", ()))
        self._layers.spend(sum(map(size_of, layers)) + size_of(own_layer), place)
        below = self._rule.merge(layers)
        whole = self._rule.merge([self._fitting(below, own_layer), own_layer])
        values = self._values(whole, f"groups: {name}", place)
        members = head.nested("members")
        mine = {each: self._member(members, each, name, counted, below, own_layer) for each in members.keys()}
        rollout = values.pop(ROLLOUT.key, ProfileRollout())
        return Group(
            name, place, count, values, {each: own for each, (own, _) in mine.items()}, said.get("hosts", ()),
            said.get("profiles", ()), rollout, layering.resolved(whole), {each: own for each, (_, own) in mine.items()},
        )  # fmt: skip

    def _member(
        self, members: Fields, member: str, group: str, counted: bool, below: Marked, own: Marked
    ) -> tuple[Mapping[str, Any], Marked]:
        number = member.removeprefix(group)
        numbered = member.startswith(group) and re.fullmatch("[1-9][0-9]{0,3}", number)
        if not (numbered if counted else member == group):
            members.complain(member, f"is no member of the group {group}")
        place = members.place(member)
        layer = self._layers.read(members, member)
        self._layers.spend(size_of(below) + size_of(own) + size_of(layer), place)
        over = self._rule.merge([own, layer])
        whole = self._rule.merge([self._fitting(below, over), over])
        values = self._values(whole, f"groups: {group}: members: {member}", place)
        if values.pop(ROLLOUT.key, None) is not None and ROLLOUT.key in layer:
            members.complain(member, "rollout is for the group as a whole")
        return values, layering.resolved(whole)

    def _of_profiles(self, head: Fields, names: Iterable[str]) -> list[Marked]:
        found = []
        for name in names:
            if name in self._profiles:
                found.append(self._profiles[name])
            else:
                known = ", ".join(sorted(self._profiles)) or "none"
                head.complain("profiles", f"there is no profile {name!r}; profiles that are known: {known}")
        return found

    def _fitting(self, below: Marked, own: Marked) -> Marked:
        """The values of profiles, without fields for the other kind of containers: a profile may serve both kinds."""
        try:
            init = init_of(layering.resolved(own), layering.resolved(below))
        except ValueError:
            return below  # it is complained of elsewhere
        made = below.copy()
        for key, row in self._rows.items():
            if row.init not in (None, init):
                made.pop(key, None)
        return made

    def _values(self, whole: Marked, where: str, place: str) -> dict[str, Any]:
        """The values of merged layers."""
        fresh: list[str] = []
        fields = Fields(layering.resolved(whole), where, fresh, place)
        said = read_said(self._rows.values(), fields)
        if wrong := fleet_apps.placed(said, whole.get("app"), self._apps):
            fields.complain("app", wrong)
        if not fresh:
            table = askable()
            spec = merged({key: value for key, value in said.items() if key in table}, {}, self._settings)
            for key, problem in combinations.problems(spec):
                fields.complain(key, problem)
        if fresh:
            # A wrong value of one layer was complained of there.
            self._told |= {_mistake(each) for each in self._complaints[self._looked :]}
            self._looked = len(self._complaints)
            self._complaints += [each for each in fresh if _mistake(each) not in self._told]
        return said

def _mistake(complaint: str) -> str:
    """A complaint without its group or profile: a profile's mistake is one of each group that has the profile."""
    return _OWNER.sub("", complaint, count=1)
