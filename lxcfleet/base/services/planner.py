"""Which files make the host's services run in a container, by the names of their units. Pure, but for reading the host.

``plan`` takes from the host, for each unit: its file, drop-ins, aliases and D-Bus names, the units that it activates or
can't do without, the generators of its package, and what the table of needs adds. The unit is enabled as `systemctl
enable` would do it, whatever the host's own state: the host may have the service disabled or masked.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from lxcfleet.base.services import packages, units
from lxcfleet.base.services.needs import NEEDS
from lxcfleet.base.services.units import ADMIN, KINDS, Unit, Units
from lxcfleet.base.tree import Tree, join
from lxcfleet.errors import InvalidInput
from lxcfleet.host.kernel.entries import Copy, Entry, Owner, Symlink

BUS = "/usr/share/dbus-1/system-services"

_ACTIVATES = {"timer": ("Timer", "Unit"), "socket": ("Socket", "Service"), "path": ("Path", "Unit")}
"""By kind: the setting that names the unit which it starts; by default that is the service of the same name."""
_HARD = ("Requires", "BindsTo", "Requisite")
"""Settings that name units without which a unit does not start."""
_LINKS = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}
"""Settings of [Install], and the ends of the directories that they have links in; systemctl(1), "enable"."""

_REACHED = frozenset(
    f"{name}.target"
    for name in ("multi-user", "default", "basic", "sysinit", "sockets", "timers", "paths", "slices", "local-fs", "swap")
)
"""The targets that each system container reaches at boot. A unit that only others want is started with the usual ones."""
_USUAL = {"service": "multi-user", "socket": "sockets", "timer": "timers", "path": "paths"}

_NEAR, _CLOSE = 3, 0.6
"""A complaint about an unknown name has at most so many others, which are at least so close to it (difflib)."""


@dataclass
class ServicePlan:
    """The outcome for the units that were asked for."""

    asked: tuple[str, ...]
    entries: dict[str, Entry] = field(default_factory=dict)
    """Path to entry, without the directories above."""
    units: dict[str, Unit] = field(default_factory=dict)
    """All units of the host that are taken, by name: those that were asked for, and those that come with them."""
    enabled: set[str] = field(default_factory=set)
    """The names of those that are started at boot."""
    wrong: dict[str, InvalidInput] = field(default_factory=dict)
    """The units that can't be had, each with the reason."""
    given: frozenset[str] = frozenset()
    """Private files of the host that containers get all the same, as they are what everybody can download."""
    withheld: list[str] = field(default_factory=list)
    """Private configuration files of the units' packages that the host has changed: they stay hidden."""
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    """The units without which another one does not start, and which the host does not have either: unit, setting, name."""

    def check(self) -> None:
        """Raise InvalidInput for the units that can't be had."""
        if not self.wrong:
            return
        first, *more = self.wrong.values()
        if not more:
            raise first
        told = [f"{error.message}{f': {error.why}' if error.why else ''}" for error in (first, *more)]
        hint = "\n".join(error.hint for error in (first, *more) if error.hint)
        raise InvalidInput(f"{len(told)} of the units can't be given to containers", why="\n".join(told), hint=hint)


def plan(tree: Tree, names: Iterable[str], present: Collection[str]) -> ServicePlan:
    """The plan that makes these units run. ``present``: the names of the units that each container has anyway."""
    return _Planner(tree, tuple(dict.fromkeys(names)), present).plan()


class _Planner:
    def __init__(self, tree: Tree, names: tuple[str, ...], present: Collection[str]) -> None:
        self._tree, self._host, self._present = tree, Units(tree), present
        self._plan = ServicePlan(names)

    def plan(self) -> ServicePlan:
        done = self._plan
        for name in done.asked:
            try:
                self._enable(self._find(name))
            except InvalidInput as error:
                done.wrong[name] = error
        self._take_of_packages()
        for unit in done.units.values():
            self._copy(unit)
        for name in sorted(done.enabled):
            self._start(done.units[name])
        self._copy_bus_names()
        done.entries = dict(sorted(done.entries.items()))
        return done

    # -- which units -----------------------------------------------------------------------------------------------

    def _find(self, name: str) -> Unit:
        kind = units.kind_of(name)
        if kind not in KINDS:
            a = "an" if kind.startswith("a") else "a"
            raise InvalidInput(
                f"{name} can't be given to containers", why=f"{a} {kind} is no service of the host's",
                hint=f"name a unit of one of these kinds: {', '.join(KINDS)}",
            )  # fmt: skip
        unit = self._host.find(name)
        if unit is None:
            raise self._unknown(name)
        if unit.path in unit.private:
            raise InvalidInput(
                f"{name} can't be given to containers", why=f"other users of the host can't read {unit.path}",
                hint=f"if it has no secrets: chmod o+r {unit.path}",
            )  # fmt: skip
        if units.is_template(unit.name):
            default = unit.names("Install", "DefaultInstance")
            if not default:
                raise InvalidInput(
                    f"{name} is a template, which does not run by itself",
                    hint=f"name an instance: {units.instance_of(name, 'NAME')}",
                )
            unit = self._host.find(units.instance_of(unit.name, default[0])) or unit
        return unit

    def _unknown(self, name: str) -> InvalidInput:
        if self._host.is_masked(name):
            return InvalidInput(
                f"{name} can't be given to containers",
                why="whoever brought it masks it: its file is empty, or a link to /dev/null",
            )
        if self._tree.is_file(f"/etc/init.d/{units.stem_of(name)}"):
            return InvalidInput(
                f"the host has no unit {name}", why=f"/etc/init.d/{units.stem_of(name)} is a script, and no unit of systemd",
                hint=f"write a unit for it: {ADMIN}/{name}",
            )  # fmt: skip
        template = f"{units.stem_of(name)}@.{units.kind_of(name)}"
        if self._host.find(template) is not None:
            return InvalidInput(
                f"the host has no unit {name}", why=f"{template} is a template",
                hint=f"name an instance: {units.instance_of(template, 'NAME')}",
            )  # fmt: skip
        other = self._with_alias(name)
        if other:
            return InvalidInput(
                f"the host has no unit {name}", why=f"{other} has that alias once the host enables it",
                hint=f"name {other}",
            )  # fmt: skip
        near = self._near(name)
        hint = f"did you mean {' or '.join(near)}?" if near else "`systemctl list-unit-files` on the host shows all"
        return InvalidInput(f"the host has no unit {name}", hint=hint)

    def _with_alias(self, name: str) -> str:
        """The unit that gets this name by `systemctl enable`; empty: none does."""
        for each in self._host.listed:
            if units.kind_of(each) == units.kind_of(name) and not units.is_template(each):
                unit = self._host.find(each)
                if unit is not None and name in unit.names("Install", "Alias"):
                    return unit.name
        return ""

    def _near(self, name: str) -> list[str]:
        stem = units.stem_of(name).casefold()
        typed, _, kind = stem.rpartition(".")
        if typed and difflib.get_close_matches(kind, KINDS, 1, _CLOSE):
            stem = typed  # the kind was mistyped, and another one added to it
        known: dict[str, str] = {}
        for each in self._host.listed:
            if units.kind_of(each) in KINDS and not units.is_template(each) and self._host.find(each):
                known.setdefault(units.stem_of(each), each)  # a service comes before its socket and its timer
        close = difflib.get_close_matches(stem, known, _NEAR, _CLOSE)
        longer = sorted((each for each in known if len(stem) > 2 and stem in each), key=len)
        return [known[each] for each in dict.fromkeys([*close, *longer])][:_NEAR]

    def _enable(self, unit: Unit) -> None:
        """Take a unit, and those that [Install] names to be enabled with it."""
        if unit.name in self._plan.enabled:
            return
        self._plan.enabled.add(unit.name)
        self._take(unit)
        for name in unit.names("Install", "Also"):
            other = self._host.find(name)
            if other is not None and other.path not in other.private and not units.is_template(other.name):
                self._enable(other)

    def _take(self, unit: Unit) -> None:
        """Take a unit, those that it activates, and those without which it does not start."""
        if unit.name in self._plan.units:
            return
        self._plan.units[unit.name] = unit
        for key, name in self._with(unit):
            known = name in self._present or name in self._plan.units
            if known or units.kind_of(name) not in (*KINDS, "target", "mount", "device"):
                continue
            other = self._host.find(name) if units.kind_of(name) in KINDS else None
            if other is not None and other.path not in other.private:
                self._take(other)
            else:
                self._plan.missing.append((unit.name, key, name))

    def _with(self, unit: Unit) -> Iterator[tuple[str, str]]:
        """The units that another one can't do without: the setting that says so, and the name."""
        if unit.kind in _ACTIVATES:
            section, key = _ACTIVATES[unit.kind]
            stem = units.stem_of(unit.name)
            usual = f"{stem}@.service" if unit.values("Socket", "Accept")[-1:] in (["yes"], ["true"]) else f"{stem}.service"
            yield key, (unit.names(section, key) or [usual])[-1]
        for each in unit.lines("Unit", *_HARD):
            for name in each.value.split():
                yield each.key, name

    def _take_of_packages(self) -> None:
        """Take what the packages of the units have besides."""
        found = packages.owned(self._tree, [unit.path for unit in self._plan.units.values()])
        for path, templates in found.generators.items():
            self._plan.entries[path] = Copy(path, _owner(self._tree, path, 0o755), "a generator of a unit's package")
            for unit in filter(None, map(self._host.find, templates)):
                self._take(unit)  # it makes instances of them
        for path, content in found.packed.items():
            self._plan.entries[path] = Copy(path, _owner(self._tree, path), "settings as the package brought them", content)
        self._plan.given = frozenset(found.packed)
        self._plan.withheld = found.changed

    # -- their files -----------------------------------------------------------------------------------------------

    def _copy(self, unit: Unit) -> None:
        why, entries = f"units: {unit.name}", self._plan.entries
        self._put(unit.path, unit.source, why)
        for path in unit.drop_ins:
            self._put(path, self._tree.real(path, last=True), why)
        for path in unit.aliases:
            entries[path] = Symlink(self._tree.link(path), why)
        need = NEEDS.get(unit.name)
        if need is not None:
            entries.update(need.entries)

    def _put(self, path: str, source: str, why: str) -> None:
        self._tree.consult(source)
        self._plan.entries[path] = Copy(source, _owner(self._tree, source), why)

    def _start(self, unit: Unit) -> None:
        """Have a unit started at boot, by the links that the host has for it, and those that `systemctl enable` makes."""
        why, reached = f"enabled: {unit.name}", False
        for path, by in self._host.wanted.get(unit.name, ()):
            reached = reached or by in _REACHED or by in self._plan.enabled
            self._plan.entries[path] = Symlink(self._tree.link(path), why)
        for alias in unit.names("Install", "Alias"):
            if "/" not in alias:
                self._plan.entries.setdefault(join(ADMIN, alias), Symlink(unit.path, why))
        for key, end in _LINKS.items():
            for by in unit.names("Install", key):
                if "/" not in by:
                    reached = reached or by in _REACHED or by in self._plan.enabled
                    self._plan.entries[f"{ADMIN}/{by}.{end}/{unit.name}"] = Symlink(unit.path, why)
        if not reached and not self._is_started_otherwise(unit):
            target = _USUAL[unit.kind]
            self._plan.entries[f"{ADMIN}/{target}.target.wants/{unit.name}"] = Symlink(unit.path, why)

    def _is_started_otherwise(self, unit: Unit) -> bool:
        """Whether another unit that is enabled with it starts it: then [Install] has nothing but that unit's name."""
        return any(each in self._plan.enabled and each != unit.name for each in unit.names("Install", "Also"))

    def _copy_bus_names(self) -> None:
        """The D-Bus names at which the units are started when somebody asks."""
        called = {link.rpartition("/")[2] for unit in self._plan.units.values() for link in unit.aliases}
        called |= {path.rpartition("/")[2] for path in self._plan.entries if path.startswith(f"{ADMIN}/")}
        called |= self._plan.units.keys()
        for found in self._tree.names(BUS) if called else ():
            path = join(BUS, found)
            match = re.search(rb"^SystemdService=(.+)$", self._tree.read(path) or b"", re.MULTILINE)
            if match and match[1].strip().decode("utf-8", "surrogateescape") in called:
                self._put(path, path, "a unit's D-Bus name")


def _owner(tree: Tree, path: str, mode: int | None = None) -> Owner:
    status = tree.lstat(path)
    if status is None:
        return Owner(0o644)
    return Owner(status.st_mode & 0o777 if mode is None else mode, status.st_uid, status.st_gid)
