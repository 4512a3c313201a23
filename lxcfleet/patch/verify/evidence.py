"""Whether a patch is everywhere: the judgement on each container, and on the host. Pure.

A container is proven when all its processes were read, none maps or runs an old file, and nothing in its delta hides a
package's file of the base's. What could not be looked at is not proven.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lxcfleet.patch.shadow.files import Shadow
from lxcfleet.patch.stale.judge import OldFile, StaleScan, Why

CONFIGURATION = "/etc/"
"""Files here are settings: a container that has its own keeps no fix out."""


@dataclass(frozen=True)
class Owned:
    """A shadow, and whose file it hides."""

    shadow: Shadow
    package: str
    version: str


@dataclass(frozen=True)
class Evidence:
    """What is known of one container."""

    scan: StaleScan
    shadows: tuple[Owned, ...]
    shadow_problem: str = ""
    busy: str | None = None


@dataclass(frozen=True)
class Proof:
    """What follows for one container."""

    old: tuple[OldFile, ...]
    shadows: tuple[Owned, ...]
    reasons: tuple[str, ...]
    """Why it is not proven; none: it is."""

    @property
    def proven(self) -> bool:
        """Whether the fix is in it."""
        return not self.reasons


def judge(seen: Evidence, host: str, owners: Mapping[str, str], packages: Collection[str]) -> Proof:
    """``host``: what is wrong with the host itself. ``owners``: the package of each old file that is one's.

    ``packages``: only what these own counts; none: everything does. Of a file that is gone from the host nobody knows
    whose it was, so it always counts.
    """

    def counts(file: OldFile) -> bool:
        return not packages or owners.get(file.path) in packages or (file.why is Why.REMOVED and file.path not in owners)

    old = tuple(file for file in seen.scan.files if counts(file))
    shadows = tuple(each for each in seen.shadows if not packages or each.package in packages)
    reasons = []
    if host:
        reasons.append(f"the host itself is not in order: {host}")
    if seen.busy is not None:
        reasons.append(f"it is busy: {seen.busy}")
    if seen.scan.problem:
        reasons.append(f"its processes could not all be read: {seen.scan.problem}")
    if seen.shadow_problem:
        reasons.append(f"its delta could not be read: {seen.shadow_problem}")
    if old:
        count = len({process.pid for file in old for process in file.processes})
        reasons.append(f"{count} of its processes run{'s' if count == 1 else ''} old code")
    if keeping := [each for each in shadows if not each.shadow.path.startswith(CONFIGURATION)]:
        reasons.append(f"{len(keeping)} file{'s' if len(keeping) > 1 else ''} in its delta keep the host's out")
    return Proof(old, shadows, tuple(reasons))


def fingerprint(packages: Mapping[str, str]) -> str:
    """Another text for each set of packages and versions."""
    text = "\n".join(f"{name} {version}" for name, version in sorted(packages.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
