"""Proves that a patch is everywhere; finds and removes what keeps it out."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from lxcfleet.api.findings import DivergedRecord, EvidenceRecord, ProofRecord, ShadowRecord, ShadowsRecord
from lxcfleet.api.records import ResultRecord
from lxcfleet.base.merge.records import records_of
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests import services
from lxcfleet.errors import Busy, FleetError, NotFound, WrongState
from lxcfleet.host.facts import system
from lxcfleet.host.packages import database, dpkg, reboot
from lxcfleet.host.packages.database import OwningPackage
from lxcfleet.host.process import proc
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.own import OwnParts
from lxcfleet.patch.owners import Owners, file_record
from lxcfleet.patch.shadow.files import Diverged, Shadow, ShadowFindings, ShadowKind, compare
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.stale.served import ComparedFiles
from lxcfleet.patch.verify import apps, covers, evidence
from lxcfleet.patch.verify.apps import Brought
from lxcfleet.patch.verify.evidence import Evidence, OwnedShadow, Proof, is_same
from lxcfleet.patch.verify.whole import WholeDecision, is_meant, whole
from lxcfleet.runtime.operations import now, result_record
from lxcfleet.spec.results import Result
from lxcfleet.spec.selection import Selection

Behind = Callable[[Container, Mapping[str, str]], Awaitable[str]]
"""Tells why the base of a container does not have all that the host has; takes the host's packages."""


@dataclass(frozen=True)
class KnownState:
    """All that is known about containers and the host at one moment."""

    evidence: Mapping[str, Evidence]
    """By container."""
    host: str
    """A defect of the host itself; empty: there is none."""
    owners: Mapping[str, OwningPackage]
    """The owners of the old files, by path."""
    wanted: ComparedFiles
    """The served files that were compared."""

    @property
    def packages(self) -> dict[str, str]:
        """The packages of the old files, by path."""
        return {path: owner.package for path, owner in self.owners.items()}


_CHANGED = "its packages changed while containers were looked at"

Prove = Callable[[Container, KnownState], Proof]


class Prover:
    """Looks at containers and the host together."""

    def __init__(
        self, registry: Registry, finder: Finder, owners: Owners, fallen: Fallen, own: OwnParts, behind: Behind,
        look: apps.Look = apps.nothing,
    ) -> None:
        """``look``: reads what the apps of containers bring along."""
        self._look = look
        self._registry, self._finder, self._owners, self._fallen = registry, finder, owners, fallen
        self._own, self._behind = own, behind

    async def verify(
        self, selection: Selection, names: Sequence[str], *, deep: bool = False, prove: Prove | None = None
    ) -> ProofRecord:
        """Judge for each of the chosen containers (all, if none is chosen) whether it has the patch.

        ``names``: only these packages count, and all their files are compared with those that a container is served; none:
        all packages count. ``deep``: of packages that changed since a container's start, all files are compared, whatever the
        settings say. ``prove``: judges a container instead of ``evidence.judge``.

        Raises NotFound for a package that the host does not have, unless its former files are known, and HostError if the
        host's packages can't be read, as then nothing can be proven.
        """
        installed = await asyncio.to_thread(database.installed)
        meant, renamed = await asyncio.to_thread(_meant, names, installed)
        gone = await self._gone([name for name, found in renamed.items() if not found])
        renamed = {name: found for name, found in renamed.items() if found}
        chosen = sorted(meant | gone.keys())
        containers = await self._registry.chosen(selection)
        wanted = ComparedFiles(self._finder.data or deep, deep, tuple(chosen))
        sight = await self.see(containers, installed, wanted, gone=gone)
        records = []
        for container in containers:
            seen = sight.evidence[container.name]
            proof = prove(container, sight) if prove else evidence.judge(seen, sight.host, sight.packages, chosen)
            record = self._evidence(container, proof, seen, sight.owners)
            record["not_compared"] = evidence.not_compared(seen, sight.wanted, self._finder.blind)
            records.append(record)
        own = await self._own.records(chosen)
        parts = [part for part in own if not selection.narrow or part["container"] in sight.evidence]
        return {
            "time": now(),
            "host": socket.gethostname(),
            "system": _system(),
            "kernel": platform.release(),
            "base": evidence.fingerprint(installed),
            "packages": {name: installed[name] for name in chosen if name in installed},
            "renamed": renamed,
            "gone": {package: len(paths) for package, paths in gone.items()},
            "reboot": await asyncio.to_thread(reboot.due),
            "cves": [],
            "proven": all(record["proven"] for record in records) and not any(part["stale"] for part in parts),
            "containers": records,
            "parts": parts,
        }

    async def _gone(self, names: Sequence[str]) -> dict[str, list[str]]:
        """The packages of these names, which the host has no more, with the files that they had. Raises NotFound if those of
        one name are not known."""
        if not names:
            return {}
        found: dict[str, list[str]] = {}
        for loss in await self._finder.lost():
            if any(is_same(loss.package, name) for name in names):
                found.setdefault(loss.package, []).append(loss.path)
        if unknown := [name for name in names if not any(is_same(package, name) for package in found)]:
            blind, what = self._finder.blind, f"no package {', '.join(map(repr, unknown))} is installed on the host"
            raise NotFound(
                f"{what}, and the files that it had are not known",
                why=f"what packages lose can't be noted: {blind}" if blind else
                "no installed package provides or replaces it, nor was it removed since lxcfleet's daemon first began after"
                " the boot",
                hint="`dpkg -l` shows those that are installed; what a container may have of a former one ends with its"
                " restart, and `lxcfleet verify` without --package proves that nothing old runs",
            )  # fmt: skip
        return found

    async def see(
        self, containers: Sequence[Container], installed: Mapping[str, str], wanted: ComparedFiles,
        pending: Sequence[str] = (), gone: Mapping[str, Sequence[str]] | None = None,
    ) -> KnownState:
        """All that is known about these containers. Raises FleetError.

        ``installed``: the host's packages; ``wanted``: the files that are compared; ``pending``: further packages that may
        take a reboot of the host; ``gone``: by package that the host has no more, the files that it had.
        """
        before = {container.name: container.running for container in containers}
        stamp, half_done = await asyncio.to_thread(lambda: (dpkg.stamp(), dpkg.half_done()))
        due = await asyncio.to_thread(reboot.pending, [*wanted.packages, *pending])
        scans = await self._finder.scan(containers, wanted)
        deltas = await self._finder.shadows(containers)
        files = await self._files([package for package in wanted.packages if package in installed])
        old = await self._owners.sure(file.path for scan in scans.values() for file in scan.files if not file.package)
        owned = await self._owned(deltas.values(), installed, files)
        covered = await covers.covered(containers)
        lost = await services.lost(containers)
        brought = await self._apps(containers, installed)
        kept = await self._kept(containers, gone or {})
        found = {}
        for container in containers:
            delta = deltas[container.name]
            changed = container.running is not before[container.name]
            busy = container.busy or ("it was restarted meanwhile" if changed else None)
            fall = self._fallen.of(container)
            why, stopped = (fall.why, bool(fall.stopped)) if fall else (None, False)
            base = await self._behind(container, installed)
            fell = (why, stopped, base, due, covered[container.name])
            seen = Evidence(scans[container.name], owned[container.name], delta.problem, busy, *fell)
            name = container.name
            found[name] = replace(seen, app=brought.get(name), lost=lost.get(name), kept=kept.get(name, {}))
        if not half_done and await asyncio.to_thread(dpkg.stamp) != stamp:
            half_done = _CHANGED  # some containers were compared with other files than the rest
        return KnownState(found, half_done, old, wanted)

    async def _kept(
        self, containers: Sequence[Container], gone: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[str, list[str]]]:
        """The files that containers have of their own of packages that the host has no more, by package."""
        packages = {path: package for package, paths in gone.items() for path in paths}
        found: dict[str, dict[str, list[str]]] = {}
        for name, paths in (await self._finder.kept(containers, packages)).items():
            for path in paths:
                found.setdefault(name, {}).setdefault(packages[path], []).append(path)
        return found

    async def _apps(
        self, containers: Sequence[Container], installed: Mapping[str, str]
    ) -> dict[str, Brought]:
        """The things that the apps of these containers bring along. Of one that runs, the app of its run counts."""
        specs = {container.name: container.spec or container.wanted for container in containers}
        uses = {name: spec.app for name, spec in specs.items() if spec is not None and spec.app is not None}
        if not uses:
            return {}
        found = await asyncio.to_thread(self._look, uses, installed)
        owners = await self._owners.sure(path for each in found.values() for path in each.libraries)
        return {
            name: replace(each, packages=tuple(sorted({owners[path].package for path in each.libraries if path in owners})))
            for name, each in found.items()
        }

    def _evidence(
        self, container: Container, verdict: Proof, seen: Evidence, owners: Mapping[str, OwningPackage]
    ) -> EvidenceRecord:
        running = container.running
        began = proc.began(running.pid) if running else None
        since = None if began is None else datetime.fromtimestamp(proc.as_time(began), UTC)
        return {
            "name": container.name,
            "state": container.state,
            "app": seen.app.release if seen.app is not None else None,
            "proven": verdict.proven,
            "reasons": list(verdict.reasons),
            "note": evidence.note(seen),
            "restarted": since.isoformat(timespec="seconds").replace("+00:00", "Z") if since else None,
            "processes": seen.scan.processes,
            "mappings": seen.scan.mappings,
            "compared": seen.scan.compared,
            "not_compared": [],
            "old": [file_record(file, owners.get(file.path)) for file in verdict.old],
            "shadows": [_shadow_record(each) for each in verdict.shadows],
        }

    async def _files(self, chosen: Sequence[str]) -> dict[str, str]:
        """Each file of the packages with its package, under every name that dpkg may have for it."""
        if not chosen:
            return {}
        listed = await asyncio.to_thread(database.files, chosen)
        return {name: package for package, paths in listed.items() for path in paths for name in database.names_of(path)}

    async def _owned(
        self, deltas: Collection[ShadowFindings], installed: Mapping[str, str], files: Mapping[str, str]
    ) -> dict[str, tuple[OwnedShadow, ...]]:
        """The shadows of each container that hide a package's file. ``files``: those of the requested packages.

        Raises HostError if the owners can't be found out: without owners, no shadow would count.
        """
        owners = await self._owners.sure(shadow.path for delta in deltas for shadow in delta.shadows)

        def owned(shadow: Shadow) -> list[OwnedShadow]:
            if shadow.directory and files:
                hidden = {package for path, package in files.items() if shadow.hides(path)}
                return [OwnedShadow(shadow, package, installed.get(package, "")) for package in sorted(hidden)]
            owner = owners.get(shadow.path)
            return [] if owner is None else [OwnedShadow(shadow, owner.package, owner.version)]

        return {d.name: tuple(each for shadow in d.shadows for each in owned(shadow)) for d in deltas}

    # -- shadows ---------------------------------------------------------------------------------------------

    async def shadows(self, selection: Selection) -> list[ShadowsRecord]:
        """The shadows of packages' files in each chosen container, and how its own packages differ. Raises FleetError."""
        containers = await self._registry.chosen(selection)
        installed = await asyncio.to_thread(database.installed)
        deltas = await self._finder.shadows(containers)
        owned = await self._owned(deltas.values(), installed, {})
        host = await asyncio.to_thread(database.by_architecture)
        covered = await covers.covered(containers)
        brought = await self._apps(containers, installed)
        return [
            {
                "name": container.name,
                "state": container.state,
                "shadows": [_shadow_record(each) for each in owned[container.name]],
                "diverged": _diverged_record(compare(own, host)) if (own := deltas[container.name].packages) else None,
                "mounts": {place: list(packages) for place, packages in covered[container.name].items()},
                "app": brought[container.name].release if container.name in brought else None,
                "brings": list(brought[container.name].copies) if container.name in brought else [],
                "problem": deltas[container.name].problem or None,
            }
            for container in containers
        ]

    async def fix(
        self, selection: Selection, paths: Sequence[str], packages: Sequence[str] = (), *, dry_run: bool
    ) -> list[ResultRecord]:
        """Remove shadows from the chosen containers, which must not run: at ``paths``, and those of ``packages`` as a whole.
        One result for each. Raises NotFound for a package that the host does not have."""
        installed = await asyncio.to_thread(database.installed) if packages else {}
        if lost := [name for name in packages if not any(is_meant([name], each) for each in installed)]:
            raise NotFound(
                f"no package {', '.join(map(repr, lost))} is installed on the host",
                why="a shadow is a file that hides one of a package of the host's",
                hint="`lxcfleet audit shadow` names the packages",
            )
        results = []
        for container in await self._registry.chosen(selection):
            try:
                results.append(await self._fix_one(container, paths, packages, dry_run=dry_run))
            except FleetError as error:
                results.append(Result(container.name, "failed", False, error.body()))
        return [result_record(result) for result in results]

    async def _fix_one(
        self, container: Container, paths: Sequence[str], packages: Sequence[str], *, dry_run: bool
    ) -> Result:
        name = container.name
        if container.busy is not None:
            raise Busy(f"{name} is busy: {container.busy}", hint="wait until that is done, then try again")
        if container.running is not None:
            raise WrongState(f"{name} is {container.state}", why="what it has mounted must not change below it",
                             hint=f"stop it first: lxcfleet stop {name}")  # fmt: skip
        with self._registry.in_hand(container, "audit"):
            deltas = await self._finder.shadows([container])
            (owned,) = (await self._owned(deltas.values(), {}, {})).values()
            own = [each.shadow for each in owned if each.shadow.own]
            removable = {shadow.path for shadow in own if shadow.kind is not ShadowKind.DIRECTORY}
            if wrong := [path for path in paths if path not in removable]:
                raise NotFound(
                    f"{', '.join(wrong)}: no shadow in {name} that can be removed",
                    why="only files and whiteouts are, that hide a package's file of the host",
                    hint=f"`lxcfleet audit shadow {name}` shows them",
                )
            taken, records = await self._whole(deltas[name], owned, packages)
            removed = tuple(sorted({*paths, *taken.removed}))
            kept = {path: why for path, why in taken.kept.items() if path not in paths}
            if not removed and not records:
                return Result(name, "unchanged", False, kept=kept)
            if not dry_run:
                await self._finder.remove(container, removed, records)
        return Result(name, "would be changed" if dry_run else "removed", not dry_run, removed=removed, kept=kept)

    async def _whole(
        self, delta: ShadowFindings, owned: Collection[OwnedShadow], packages: Sequence[str]
    ) -> tuple[WholeDecision, Mapping[str, str]]:
        """The shadows that go with ``packages``, and the host's records of those that the container has in other versions."""
        if not packages:
            return WholeDecision(()), {}
        changed = compare(delta.packages, await asyncio.to_thread(database.by_architecture)).changed if delta.packages else {}
        taken = whole(packages, owned, delta.shadows, changed)
        status = await asyncio.to_thread(database.STATUS.read_bytes) if taken.records else b""
        return taken, {name: os.fsdecode(record) for name, record in records_of(status, taken.records).items()}


def _meant(names: Sequence[str], installed: Mapping[str, str]) -> tuple[set[str], dict[str, list[str]]]:
    """The installed packages that names stand for: with every architecture, if a name has none; and by name the packages that
    took over names which no package has now, none if there are none such. Raises FleetError."""
    direct = {name: {each for each in installed if name in (each, each.partition(":")[0])} for name in names}
    gone = {name: name.partition(":")[0] for name, found in direct.items() if not found}
    successors = database.substitutes(gone.values())
    renamed = {name: sorted(set(successors.get(base, ())) & installed.keys()) for name, base in gone.items()}
    return set().union(*direct.values(), *renamed.values()), renamed


def _system() -> str:
    return system.release().get("PRETTY_NAME", os.uname().sysname)  # a host need not have it


def _shadow_record(owned: OwnedShadow) -> ShadowRecord:
    shadow = owned.shadow
    return {
        "path": shadow.path,
        "kind": shadow.kind,
        "age": shadow.age,
        "same": shadow.same,
        "package": owned.package,
        "version": owned.version,
        "layer": shadow.layer,
    }


def _diverged_record(diverged: Diverged) -> DivergedRecord | None:
    if not diverged:
        return None
    return {
        "added": dict(diverged.added),
        "removed": list(diverged.removed),
        "changed": {name: list(versions) for name, versions in diverged.changed.items()},
    }
