"""The fleet as a file: what it says of each container, read strictly, with all complaints at once. Pure.

The file has groups. A group with a count stands for that many containers, NAME1 to NAMEn; without one it is a single
container of that very name. What a group says is merged with its profiles, and with what its members say for themselves,
by the rule of ``layering``. All keys about containers come from the table of fields.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.depends import MAX_DEPENDS, Graph
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.merging import init_of, merged
from lxcfleet.spec.container.secrets import SOURCES, SecretSource
from lxcfleet.spec.files import env_file, fleet_apps, fleet_volumes, layering
from lxcfleet.spec.files.fleet_apps import AppWish
from lxcfleet.spec.files.fleet_volumes import VolumeWish
from lxcfleet.spec.files.profiles import ROLLOUT, Profile, foreign_commands
from lxcfleet.spec.files.profiles import rows as rows_of_profiles
from lxcfleet.spec.policies.rollout import ProfileRollout
from lxcfleet.spec.reading import marked_yaml
from lxcfleet.spec.reading.names import MAX_COUNT, check_name
from lxcfleet.spec.reading.reader import Fields, Marked, did_you_mean
from lxcfleet.spec.reading.rows import Row, read_said
from lxcfleet.spec.reading.types import Texts, Whole

FORMAT = 1
"""The version of the format."""

COUNT = Row(
    Whole(0, MAX_COUNT), "How many containers the group has: NAME1 to NAMEn. Without it, one of its own name.", key="count"
)
PROFILES = Row(Texts(), "Profiles, the last on top: those of this file, of profiles.d and of the settings.", key="profiles")
HOSTS = Row(
    Texts(), "Globs of names of hosts: on other hosts the group does not exist. Without it, it is on all of them.",
    key="hosts",
)  # fmt: skip
ENV_FILES = Row(
    Texts(), "Files with NAME=VALUE lines, read when the fleet file is applied; `environment` beside it comes first. A"
    " relative path begins where the fleet file is.", key="env_files",
)  # fmt: skip
OWN: Mapping[str, Row] = {row.key: row for row in (COUNT, PROFILES, HOSTS, ENV_FILES)}
"""Keys of groups that containers do not have. ``env_files`` may stand in profiles and members, too."""

SECRETS = "secrets"
"""The section with the sources of secrets."""
TOP = ("lxcfleet", "fleet", SECRETS, fleet_volumes.KEY, fleet_apps.KEY, "profiles", "groups")
"""The keys of the file itself."""
MOST = 500
"""So many complaints are enough."""
MAX_MERGED = 300_000
"""The most values of groups and members once layers are merged, and of env_files: a file may say a thing once and mean it for
thousands of members, each of which has all of it then."""
MAX_HELD = 1_000_000
"""The most values of all containers together."""
_SUGGESTED = 20
"""So many unknown keys get the name of one that is like them, as to find it takes long."""
MOST_CIRCLES = 10
"""So many circles of dependencies are enough."""
_OWNER = re.compile(": (groups|profiles): [^:]*(: members: [^:]*)?")
LATER: Mapping[str, str] = {
    "autoscale": "", "base": "generation: N", "logs": "", "stop": "stop_signal and stop_timeout",
}  # fmt: skip
"""Keys that the format has, and this version does not carry out, with the key that does something like it."""


def container_rows() -> Mapping[str, Row]:
    """The keys that profiles, groups and members may have alike."""
    return rows_of_profiles()


@dataclass(frozen=True)
class Group:
    """One group of the file."""

    name: str
    place: str
    count: int | None
    said: Mapping[str, Any]
    """Values by key of the table, for each member that says nothing for itself."""
    members: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The values of members that say something for themselves."""
    hosts: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    rollout: ProfileRollout = field(default_factory=ProfileRollout)
    merged: Marked = field(default_factory=Marked, compare=False, repr=False)
    """What it says in the form of the file, with the place of each value."""
    merged_members: Mapping[str, Marked] = field(default_factory=dict, compare=False, repr=False)
    """The same for members that say something for themselves."""

    def names(self, count: int | None) -> tuple[str, ...]:
        """The names of its containers, if there are so many."""
        if self.count is None or count is None:
            return (self.name,)
        return tuple(f"{self.name}{number}" for number in range(1, count + 1))

    def of(self, name: str) -> Mapping[str, Any]:
        """The values for one of its containers."""
        return self.members.get(name, self.said)

    def is_on(self, host: str) -> bool:
        """Whether the group exists on a host of that name."""
        return _fits(self.hosts, host)


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
        volumes = {name: wish for name, wish in self.volumes.items() if _fits(wish.hosts, host)}
        apps = {name: wish for name, wish in self.apps.items() if _fits(wish.hosts, host)}
        return FleetFile(self.fleet, self.where, here, volumes, self.secrets, apps)


def _fits(hosts: tuple[str, ...], host: str) -> bool:
    return not hosts or any(fnmatch.fnmatchcase(host, glob) for glob in hosts)


@dataclass(frozen=True)
class Sources:
    """A fleet file with the files that it names."""

    text: str
    where: str = "fleet.yaml"
    """Its name, for complaints."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The text of each file in ``env_files``, by the name that stands there."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why others could not be read."""


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


def in_order(complaints: Iterable[str]) -> list[str]:
    """Complaints in the order of lines, each once."""

    def line(text: str) -> tuple[str, int]:
        found = re.match(r"(.*?):([0-9]+): ", text)
        return (found[1], int(found[2])) if found else ("", 0)

    return sorted(dict.fromkeys(complaints), key=line)


def env_files(text: str, where: str) -> dict[str, str]:
    """The names in all ``env_files`` of a fleet file, each with its place; as far as it can be read."""
    found: dict[str, str] = {}

    def collect(value: object) -> None:
        if not isinstance(value, Marked):
            return
        for key, inner in value.items():
            if key == ENV_FILES.key and isinstance(inner, list):
                found.update({name: value.places[key] for name in inner if isinstance(name, str)})
            collect(inner)

    try:
        collect(marked_yaml.load(text.encode("utf-8", "surrogatepass"), where, lambda _: None))
    except InvalidInput:
        return {}
    return found


class _Reader:
    """Reads one file."""

    def __init__(self, sources: Sources, settings: Any, complaints: list[str]) -> None:
        self._sources, self._settings, self._complaints = sources, settings, complaints
        self._rows = rows_of_profiles()
        self._rule = layering.Rule(self._rows)
        self._profiles: dict[str, Marked] = {}
        self._apps: Mapping[str, AppWish] = {}
        self._told: set[str] = set()
        """Mistakes that were complained of, as far as ``_looked`` says."""
        self._looked = 0
        self._merged = 0

    def _spend(self, values: int, place: str) -> None:
        """Count values that are about to be merged. Raises InvalidInput if these are more than any file needs."""
        self._merged += values
        if self._merged > MAX_MERGED:
            why = f"{place}: profiles, groups, members and env_files have more than {MAX_MERGED} values in all"
            raise InvalidInput("", why="\n".join([*in_order(self._complaints)[:MOST], why]))

    def read(self, top: Fields) -> FleetFile:
        """The file with these keys."""
        if not top.has("fleet"):
            top.complain("fleet", "is missing: the name of the owner of what this file makes", f"{self._sources.where}:1")
        fleet = top.text("fleet")
        self._check_name(top, "fleet", fleet)
        given: Mapping[str, Profile] = self._settings.profiles
        self._profiles = {name: profile.raw for name, profile in given.items()}
        volumes = fleet_volumes.read(top, HOSTS)
        secrets = SOURCES.read(top, SECRETS)
        self._apps = fleet_apps.read(top, HOSTS)
        profiles = top.nested("profiles")
        for name in profiles.keys():
            self._profiles[name] = self._layer(profiles, name, {ENV_FILES.key})
        groups = top.nested("groups")
        found = {}
        for name in groups.keys():
            found[name] = self._group(groups, name)
            if len(self._complaints) > MOST:
                raise InvalidInput("", why="\n".join([*in_order(self._complaints)[:MOST], "and more"]))
        self._close(top, TOP)
        total = sum(1 if group.count is None else group.count for group in found.values())
        if total > MAX_COUNT:
            top.complain("groups", f"these are {total} containers, and a fleet may have {MAX_COUNT}")
        else:
            self._check_collisions(found)
            self._complaints += circles(found)
        held = sum(_size(each.of(name)) for each in found.values() for name in each.names(each.count)[:MAX_COUNT])
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

    def _close(self, fields: Fields, known: Iterable[str]) -> None:
        """Complain of what is left."""
        for number, key in enumerate(fields.keys()):
            if number > MOST:
                return
            if key in LATER:
                instead = f": write {LATER[key]}" if LATER[key] else ""
                fields.complain(key, f"not known to this version of lxcfleet{instead}")
            else:
                fields.complain(key, "unknown key" + (did_you_mean(key, known) if number < _SUGGESTED else ""))

    def _layer(self, outer: Fields, key: str, own: Iterable[str] = ()) -> Marked:
        """What a profile, group or member says, without its own keys; each value is checked by itself."""
        raw = outer.raw(key)
        inner = outer.nested(key)
        if not isinstance(raw, Marked):
            return Marked(outer.place(key))
        layer = raw.copy()
        for name in own:
            layer.pop(name, None)
        self._add_env_files(inner, layer)
        for row in self._rows.values():
            if isinstance(layer.get(row.key), Marked):
                inner.drop_nulls(row.key)
        checked = [row for row in self._rows.values() if row.type.whole]
        read_said(checked, inner)
        for row in self._rows.values():
            if not row.type.whole and inner.has(row.key):
                inner.skip(row.key)  # it may be a part, which is checked once all layers are merged
        inner.skip(*own)
        self._close(inner, {*self._rows, *own})
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
            self._spend(text.count("\n"), place)
            for key, value, line in env_file.read(text, name, self._complaints.append):
                found.put(key, value, f"{name}:{line}")
        own = layer.get("environment")
        if found and (own is None or isinstance(own, Marked)) and ("environment" not in layer or own is not None):
            for key, value in (own or {}).items():
                found.put(key, value, own.places[key] if isinstance(own, Marked) else place)
            layer.put("environment", found, layer.places.get("environment", place))

    def _group(self, groups: Fields, name: str) -> Group:
        self._check_name(groups, name, name)
        place = groups.place(name)
        raw = groups.raw(name)
        head = Fields(raw, f"groups: {name}", self._complaints, place) if isinstance(raw, Marked) else None
        own_layer = self._layer(groups, name, {*OWN, "members"})
        if head is None:
            return Group(name, place, None, {})
        counted = head.has("count")
        said = read_said([COUNT, PROFILES, HOSTS], head)
        count = said.get("count")
        if count is not None and name[-1:].isdigit():
            head.complain("count", f"the name of a group with a count can't end in a digit: its members are {name}1, …")
        layers = self._of_profiles(head, said.get("profiles", ()))
        self._spend(sum(map(_size, layers)) + _size(own_layer), place)
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
        layer = self._layer(members, member)
        self._spend(_size(below) + _size(own) + _size(layer), place)
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
        """What profiles say, without fields for the other kind of containers: a profile may serve both kinds."""
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

    def _check_collisions(self, groups: Mapping[str, Group]) -> None:
        """Complain of a container that two groups would have."""
        seen: dict[str, Group] = {}
        for group in groups.values():
            for name in group.names(group.count):
                other = seen.setdefault(name, group)
                if other is not group and not _apart(group, other):
                    self._complaints.append(
                        f"{group.place}: groups: {group.name}: {name} is in the group {other.name}, too ({other.place})"
                    )
                    break
            if group.count:
                for end in (1, group.count):
                    self._check_member_name(group, f"{group.name}{end}")

    def _check_member_name(self, group: Group, name: str) -> None:
        try:
            check_name(name)
        except InvalidInput as error:
            self._complaints.append(f"{group.place}: groups: {group.name}: {error.message}: {error.why}")


def _size(values: Mapping[str, Any]) -> int:
    """How many values these are, with those of lists and mappings."""
    return sum(1 + (len(value) if isinstance(value, Mapping | list | tuple) else 0) for value in values.values())


def _mistake(complaint: str) -> str:
    """A complaint without its group or profile: a profile's mistake is one of each group that has the profile."""
    return _OWNER.sub("", complaint, count=1)


def depends_of(group: Group, member: str) -> Mapping[str, str]:
    """What one of the group's containers waits for."""
    found: Mapping[str, str] = group.of(member).get("depends_on", {})
    return found


def place_of(group: Group, name: str) -> str:
    """Where the group, or the first of its members that does, says that it waits for ``name``."""
    for layer in (group.merged, *group.merged_members.values()):
        said = layer.get("depends_on")
        if isinstance(said, Marked) and name in said:
            return said.places.get(name) or said.place
    return group.place


def circles(groups: Mapping[str, Group]) -> Iterator[str]:
    """A complaint for each circle in which containers of the file wait for each other; whatever hosts they are for."""
    members = {name: group.names(group.count) for name, group in groups.items()}
    owners = {each: groups[name] for name, names in members.items() for each in names}
    said = {each: depends_of(group, each) for each, group in owners.items()}
    depends = {each: set(names if len(names) <= MAX_DEPENDS else ()) for each, names in said.items()}
    for _ in range(MOST_CIRCLES):
        circle = Graph(depends, members).cycle()
        if not circle:
            return
        one, other = next((one, other) for one, other in itertools.pairwise(circle) if one in depends)
        group = owners[one]
        yield f"{place_of(group, other)}: groups: {group.name}: depends_on.{other}: a circle: {' waits for '.join(circle)}"
        for each in members[group.name]:
            depends[each].discard(other)


def _apart(one: Group, other: Group) -> bool:
    """Whether two groups name hosts without globs, and none in common."""
    plain = not any(set("*?[") & set(glob) for glob in (*one.hosts, *other.hosts))
    return bool(one.hosts and other.hosts) and plain and not {*one.hosts} & {*other.hosts}


def said_of(group: Group, member: str | None = None) -> Iterator[tuple[str, Any, str]]:
    """Each value that the group has, or one of its members, with its key and its place."""
    merged = group.merged if member is None else group.merged_members.get(member, group.merged)
    for key, value in merged.items():
        if isinstance(value, Marked):
            for inner, each in value.items():
                yield f"{key}.{inner}", each, value.places[inner]
        else:
            yield key, value, merged.places[key]
