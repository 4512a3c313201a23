"""Whether a patch is everywhere: the judgement on each container, and on the host. Pure.

A container is proven when all its processes were read, none maps or runs an old file, and nothing in its delta hides a
package's file of the base's. If parts of it could not be looked at, it is not proven.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lxcfleet.patch.shadow.files import Shadow
from lxcfleet.patch.stale.judge import OldFile, StaleScan, Why
from lxcfleet.patch.stale.served import ComparedFiles
from lxcfleet.patch.verify.apps import Brought
from lxcfleet.units import counted, some

_NAMED = 10
"""The most packages that a reason names."""
_FILES = 3
"""The most files that a reason names."""
CONFIGURATION = "/etc/"
"""Directories of settings: a container's own settings keep no fix out."""


@dataclass(frozen=True)
class OwnedShadow:
    """A shadow, and the package whose file it hides."""

    shadow: Shadow
    package: str
    version: str


@dataclass(frozen=True)
class Evidence:
    """The facts about one container."""

    scan: StaleScan
    shadows: tuple[OwnedShadow, ...]
    shadow_problem: str = ""
    busy: str | None = None
    fallen: str | None = None
    """The reason why a patch took it down; None: none did."""
    stopped: bool = False
    """Whether the operator stopped it since: then it stays down, and starts on a fresh mount if it is started."""
    base: str = ""
    """The reason why its base does not have all of the host's patches; empty: it has."""
    pending: Mapping[str, str] = field(default_factory=dict)
    """Packages that take effect with a reboot of the host, and why they have not yet."""
    covered: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Packages with files below each place where it mounts something: patches of these files do not reach it."""
    app: Brought | None = None
    """The things that its app brings along; None: it has no app."""
    kept: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Files in its delta of packages that the host has no more, by package."""
    lost: str | None = None
    """Services of the host's that it is to run, and that the host does not have any more; None: there are none such."""


@dataclass(frozen=True)
class Proof:
    """The judgement on one container."""

    old: tuple[OldFile, ...]
    shadows: tuple[OwnedShadow, ...]
    reasons: tuple[str, ...]
    """The reasons why it is not proven; none: it is proven."""

    @property
    def proven(self) -> bool:
        """Whether the container has the fix."""
        return not self.reasons


def judge(seen: Evidence, host: str, owners: Mapping[str, str], packages: Collection[str]) -> Proof:
    """``host``: a defect of the host itself. ``owners``: the package of each old file that belongs to one.

    ``packages``: only files of these count; none: every file counts. A file that is gone from the host has no known owner,
    so it always counts.
    """

    def counts(file: OldFile) -> bool:
        owner = file.package or owners.get(file.path)
        return not packages or owner in packages or (file.why is Why.REMOVED and owner is None)

    old = tuple(file for file in seen.scan.files if counts(file))
    shadows = tuple(each for each in seen.shadows if not packages or each.package in packages)
    reasons = []
    if host:
        reasons.append(f"the host itself is not in order: {host}")
    reasons += [f"{name} takes effect with a reboot of the host: {why}" for name, why in sorted(seen.pending.items())]
    if seen.base:
        reasons.append(seen.base)
    reasons += [
        f"the mount at {place} hides files of {', '.join(hidden[:_NAMED])}{', …' if len(hidden) > _NAMED else ''}"
        for place, packages_there in sorted(seen.covered.items())
        if (hidden := [each for each in packages_there if any(is_same(each, other) for other in packages)])
    ]
    reasons += _of_app(seen.app, packages)
    if seen.busy is not None:
        reasons.append(f"it is busy: {seen.busy}")
    if seen.fallen is not None and not seen.stopped:
        reasons.append(f"a patch took it down, and it does not run: {seen.fallen}")
    if seen.scan.problem:
        reasons.append(f"not all of it could be looked at: {seen.scan.problem}")
    if seen.shadow_problem:
        reasons.append(f"its delta could not be read: {seen.shadow_problem}")
    run = [file for file in old if file.why in (Why.REPLACED, Why.REMOVED)]
    if run:
        count = len({process.pid for file in run for process in file.processes})
        reasons.append(f"{count} of its processes run{'s' if count == 1 else ''} old code")
    if any(file.why is Why.MONITOR for file in old):
        reasons.append("its monitor runs old code, which a restart of the container renews")
    if any(file.why is Why.CLIENT for file in old):
        reasons.append("its DHCP client runs old code, which a restart of the container renews")
    for word, why in (("may run old modules of", Why.MODULES), ("serves old files of", Why.SERVED)):
        if whose := sorted({file.package for file in old if file.why is why}):
            reasons.append(f"{word} {', '.join(whose[:_NAMED])}{', …' if len(whose) > _NAMED else ''}")
    reasons += [
        f"it has {counted(len(paths), 'file')} of {package} of its own, which the host has no more: {some(paths, _FILES)}"
        for package, paths in sorted(seen.kept.items())
    ]
    reasons += _keeping([each.shadow.layer for each in shadows if _counts(each.shadow) and not each.shadow.same])
    return Proof(old, shadows, tuple(reasons))


def _counts(shadow: Shadow) -> bool:
    return not shadow.path.startswith(CONFIGURATION)


def _keeping(layers: Sequence[str]) -> Iterator[str]:
    """``layers``: the layer of each file that keeps one of the host's out."""
    for layer in dict.fromkeys(layers):
        many = layers.count(layer) > 1
        yield f"{layers.count(layer)} file{'s' if many else ''} in its {layer} {'keep' if many else 'keeps'} the host's out"


def _of_app(app: Brought | None, packages: Collection[str]) -> list[str]:
    """Why an app keeps the fix of one of these packages out. If all packages count, that it brings copies is only told."""
    if app is None or not packages:
        return []
    if app.problem or any(is_same(each, other) for each in app.packages for other in packages):
        return app.words[:1]
    return []


def is_same(one: str, other: str) -> bool:
    """Whether two names stand for the same package, with or without an architecture."""
    bare = ":" not in one or ":" not in other
    return one == other or (bare and one.partition(":")[0] == other.partition(":")[0])


def note(seen: Evidence) -> str | None:
    """A fact that does not count against the proof."""
    facts = []
    if seen.fallen is not None and seen.stopped:
        facts.append(f"a patch took it down, and it was stopped since: {seen.fallen}")
    if seen.lost is not None:
        facts.append(f"it can't start again: {seen.lost}")
    if seen.app is not None:
        facts += seen.app.words
    if alike := sum(_counts(each.shadow) and each.shadow.same for each in seen.shadows):
        facts.append(f"it has {counted(alike, 'file')} of its own like the host's so far, which later patches do not reach")
    return "; ".join(facts) or None


def not_compared(seen: Evidence, wanted: ComparedFiles, blind: str = "") -> list[str]:
    """Files that a proof of this container does not cover, in words.

    ``blind``: the reason why it is not known which files packages have lost.
    """
    covered = [
        f"files of {', '.join(there[:_NAMED])}{', …' if len(there) > _NAMED else ''} below {place}, where a mount hides them"
        for place, there in sorted(seen.covered.items())
    ]
    if seen.scan.problem and not seen.scan.processes:
        return [f"its processes, and the files that it is served: {seen.scan.problem}", *covered]
    if not seen.scan.processes:
        return ["processes, as it does not run: it will start on a fresh mount", *covered]
    left = [*covered, "memory without a file, and files that the container made itself"]
    if seen.app is not None:
        left.append(f"files of its app {seen.app.release}, which are none of the host's")
    if not wanted.changed:
        asked = ", but for those of the packages that are asked for" if wanted.packages else ""
        left.append(f"files of packages that it is served, but does not run{asked}")
        left.append("modules that interpreters have read")
    elif not wanted.documentation:
        left.append("documentation, manual pages and translations that it is served")
    if wanted.changed or wanted.packages:
        left.append("files of no package, or changed by hand, that it is served, but does not run")
        left.append("files in directories that do not belong to root")
    if seen.scan.problem:
        left.append(f"the parts that could not be looked at: {seen.scan.problem}")
    if blind or not (wanted.changed or wanted.packages):
        why = f" ({blind})" if blind else ""
        left.append(f"files that packages had and have no more, as far as no process maps them{why}")
    return left


def fingerprint(packages: Mapping[str, str]) -> str:
    """A text that differs for each set of packages and versions."""
    text = "\n".join(f"{name} {version}" for name, version in sorted(packages.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
