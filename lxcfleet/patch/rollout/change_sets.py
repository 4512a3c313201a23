"""The specs that a rollout gives its members: the former ones and the wanted ones, on disk for as long as it may be undone.

A container's spec is replaced just before its restart, in its wave. So what a halted rollout did not reach keeps its
former spec, also over a reboot of the host. To undo a rollout means another one, with the specs the other way round.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from lxcfleet.containers.container import Container
from lxcfleet.containers.requests.changing import Changing
from lxcfleet.errors import Broken, Conflict, FleetError, HostError, NotFound
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.fields import askable, stored
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import Effect, read_said

log = logging.getLogger(__name__)

KEPT = 5
"""So many rollouts' specs are kept."""
_KEYS = ("fleet", "group")
"""The keys that a rollout changes besides those that can be asked for."""


@dataclass(frozen=True)
class MemberValues:
    """The values of one member, by key, in the form of its file."""

    former: Mapping[str, Any]
    wanted: Mapping[str, Any]


@dataclass(frozen=True)
class ChangeSet:
    """The changes of one rollout."""

    rollout: str
    members: Mapping[str, MemberValues] = field(default_factory=dict)
    undoes: str = ""
    """The rollout that this one undoes; empty: none."""

    @property
    def about(self) -> str:
        """The apps that it changes, such as ``shop@1.4 -> shop@1.5``; empty: none."""
        pairs = {(each.former["app"], each.wanted["app"]) for each in self.members.values() if "app" in each.wanted}
        return ", ".join(f"{former or 'no app'} -> {wanted or 'no app'}" for former, wanted in sorted(pairs, key=str))

    def reversed(self, rollout: str) -> ChangeSet:
        """The changes that undo these. What undoes an undo is a change like the first one."""
        members = {name: MemberValues(each.wanted, each.former) for name, each in self.members.items()}
        return ChangeSet(rollout, members, undoes="" if self.undoes else self.rollout)


def changing_values(former: Spec, wanted: Spec) -> MemberValues:
    """The fields in which two specs differ, in the form of files."""
    rows = {key: row for key, row in stored().items() if key in _KEYS or row.change is not Effect.NEVER}
    keys = [key for key in rows if getattr(former, key) != getattr(wanted, key)]
    return MemberValues(*({key: rows[key].render(getattr(spec, key)) for key in keys} for spec in (former, wanted)))


def applied(spec: Spec, values: Mapping[str, Any]) -> Spec:
    """The spec with these values, which ``changing_values`` wrote."""
    return replace(spec, **_read(json.dumps(values)))


def holds(spec: Spec, values: Mapping[str, Any]) -> bool:
    """Whether a spec has these values, which ``changing_values`` wrote."""
    return all(getattr(spec, key) == value for key, value in _read(json.dumps(values)).items())


def readable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of these values, which ``changing_values`` wrote, that this version can read."""
    found = {}
    for key, value in values.items():
        with contextlib.suppress(FleetError):
            _read(json.dumps({key: value}))
            found[key] = value
    return found


@lru_cache(maxsize=256)
def _read(text: str) -> Mapping[str, Any]:
    """The values in this text, by key; without fields of another version of lxcfleet, which no spec has here. Mostly all
    members of a rollout get the same ones."""
    rows, values = stored(), json.loads(text)
    complaints: list[str] = []
    read = read_said([rows[key] for key in values if key in rows], Fields(values, "", complaints))
    if complaints:
        raise HostError("the specs of the rollout can't be read", why="\n".join(complaints))
    return {**dict.fromkeys(key for key in values if values[key] is None and key in rows), **read}


def load(file: Path) -> ChangeSet:
    """The change set in a file. Raises OSError, ValueError, KeyError, TypeError, AttributeError."""
    data = ondisk.record(file, ondisk.LARGE)
    members = {name: MemberValues(dict(former), dict(wanted)) for name, (former, wanted) in data["members"].items()}
    return ChangeSet(data["rollout"], members, data["undoes"])


class ChangeSets:
    """The change sets on disk, and how a member gets its spec."""

    def __init__(self, paths: Paths, changing: Changing) -> None:
        self._paths, self._changing = paths, changing
        self._read: tuple[tuple[int, ...], ChangeSet] | None = None
        """The change set that was read last, with what tells its file from others: each member of a wave asks for it."""

    def keep(self, changes: ChangeSet) -> None:
        """Have it on disk before the rollout begins. Raises HostError."""
        members = {name: [dict(each.former), dict(each.wanted)] for name, each in changes.members.items()}
        data = {"rollout": changes.rollout, "undoes": changes.undoes, "members": members}
        try:
            self._paths.change_sets.mkdir(parents=True, exist_ok=True, mode=0o700)
            tree.write(self._file(changes.rollout), json.dumps(data), sync=True)
            for old in self._files()[:-KEPT]:
                if old.stem != changes.undoes:  # however often it is asked for, the rest may be put back
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise HostError.from_os_error("the specs of the rollout can't be written down", error) from error

    def of(self, rollout: str) -> ChangeSet:
        """The change set of a rollout. Raises NotFound."""
        try:
            status = self._file(rollout).stat()
            key = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if self._read is None or self._read[0] != key:
                self._read = key, load(self._file(rollout))
            return self._read[1]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            said = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            raise NotFound(
                f"what the rollout {rollout} changed is not known", why=f"{self._file(rollout)}: {said}",
                hint="apply a file with the specs that are wanted",
            ) from error  # fmt: skip

    def apps(self) -> set[str]:
        """The apps that members of the last rollout had before, as their specs name them."""
        files = self._files()
        try:
            members = self.of(files[-1].stem).members.values() if files else ()
        except FleetError:
            return set()
        return {str(each.former["app"]) for each in members if each.former.get("app")}

    def put_back(self) -> dict[str, dict[str, Any]]:
        """By container and key, the values that an undo gave it, and no later rollout has changed. What another version of
        lxcfleet wrote, and this one can't read, is no part of them."""
        found: dict[str, dict[str, Any]] = {}
        for file in self._files():
            try:
                changes = self.of(file.stem)
            except FleetError:
                continue
            for name, each in changes.members.items():
                mine = found.setdefault(name, {})
                if changes.undoes:
                    mine.update(readable(each.wanted))
                else:
                    found[name] = {key: value for key, value in mine.items() if key not in each.wanted}
        return found

    async def put(self, rollout: str, container: Container) -> None:
        """Give a member its spec, if it has the former one. Raises FleetError."""
        await self._give(self.of(rollout), [container])

    async def put_together(self, rollout: str, containers: Sequence[Container]) -> None:
        """Give the members of a wave their specs: to force many files to the disk together takes little longer than one.

        If one of them can't have its spec, none gets it here, and ``put`` tells for each.
        """
        try:
            await self._give(self.of(rollout), containers)
        except FleetError as error:
            log.info("the wave gets its specs one by one: %s", error)

    async def _give(self, changes: ChangeSet, containers: Sequence[Container]) -> None:
        wanted = {}
        for container in containers:
            specs = changes.members.get(container.name)
            if specs is None or container.wanted is None:
                continue
            if holds(container.wanted, specs.wanted):
                continue
            if not holds(container.wanted, specs.former):
                raise Conflict(f"{container.name} was changed by somebody else meanwhile", hint="apply the file again")
            wanted[container.name] = applied(container.wanted, specs.wanted)
        if wanted:
            chosen = [container for container in containers if container.name in wanted]
            await self._changing.carry_out(await self._changing.check(chosen, wanted, askable(), anew=False))

    async def check_way_back(self, rollout: str, containers: Iterable[Container]) -> None:
        """Raise FleetError if a former spec names what is not there any more: a generation, a release of an app, a volume."""
        members = self.of(rollout).members
        for container in containers:
            if (now := container.wanted) is not None:
                try:
                    await self._changing.check_there(now, applied(now, members[container.name].former))
                except FleetError as error:
                    raise Conflict(
                        f"{container.name} can't get its former spec back; nothing is changed",
                        why=f"{error.message}{': ' if error.why else ''}{error.why}",
                        hint=error.hint or "give it another spec by `lxcfleet set`, or apply a file",
                    ) from error  # fmt: skip

    def untold(self, rollout: str, container: Container) -> FleetError | None:
        """Why it can't be told whether a member has the spec that the rollout gives it; None: it can. Raises NotFound."""
        name, specs = container.name, self.of(rollout).members.get(container.name)
        message = f"{name} does not get its former spec back, as it is not known whether {rollout} gave it another one"
        if specs is None:
            return None
        if container.wanted is None:
            problem = container.problem
            why = f"{problem.message}: {problem.why}" if problem is not None else "its spec can't be read"
            return Broken(message, why=why, hint="" if problem is None else problem.hint)
        try:
            holds(container.wanted, specs.wanted)
        except FleetError as error:
            return HostError(
                message, why=f"{self._file(rollout)}: {error.why or error.message}",
                hint=f"`lxcfleet info {name}` shows what it has; `lxcfleet set {name}`, or a file to apply, gives it another",
            )  # fmt: skip
        return None

    def has(self, rollout: str, container: Container) -> bool:
        """Whether a container has the spec that the rollout gives it."""
        return self._holds(rollout, container, container.wanted, lambda specs: specs.wanted)

    def has_former(self, rollout: str, container: Container) -> bool:
        """Whether a container has the spec that the rollout replaces."""
        return self._holds(rollout, container, container.wanted, lambda specs: specs.former)

    def lacks(self, rollout: str, container: Container) -> bool:
        """Whether a container runs without the spec that the rollout gives it, though nobody has given it another one."""
        if container.running is None or container.spec is None:
            return False
        if not self.has(rollout, container):
            return self.has_former(rollout, container)
        return not self._holds(rollout, container, container.spec, lambda specs: specs.wanted)

    def _holds(
        self, rollout: str, container: Container, spec: Spec | None, which: Callable[[MemberValues], Mapping[str, Any]]
    ) -> bool:
        try:
            specs = self.of(rollout).members.get(container.name)
            return specs is not None and spec is not None and holds(spec, which(specs))
        except FleetError:
            return False

    def _files(self) -> list[Path]:
        """The change sets, the oldest first; without links that lead nowhere, and what is removed at this moment."""
        found = []
        for file in self._paths.change_sets.glob("*.json"):
            with contextlib.suppress(OSError):
                found.append((file.stat().st_mtime_ns, file))
        return [file for _, file in sorted(found)]

    def _file(self, rollout: str) -> Path:
        return self._paths.change_sets / f"{rollout}.json"
