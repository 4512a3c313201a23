"""The state of a CVE in a container: what its packages have of the fix, and what `verify` knows of its processes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from lxcfleet.launcher.items.cves import CveSet, FoundCve
from lxcfleet.patch.cve.changelog import MentionKind
from lxcfleet.patch.cve.findings import FixState
from lxcfleet.patch.verify import evidence
from lxcfleet.patch.verify.evidence import Evidence
from lxcfleet.spec.states import CveState
from lxcfleet.units import some

_NAMED = 5


class CveVerdict(NamedTuple):
    """The state of a CVE in a container, and why."""

    state: CveState
    why: tuple[str, ...] = ()


def verdict(found: FoundCve, seen: Evidence, host: str, owners: Mapping[str, str], *, own: bool) -> CveVerdict:
    """The state of a CVE in one container.

    ``host``: a defect of the host itself; ``owners``: the package of each old file, by path; ``own``: whether the container
    has packages of its own. Proven is only what `verify` would prove of these packages.
    """
    if found["disk"] in (FixState.OPEN, FixState.FIXABLE):
        return without_fix(found)
    names = frozenset(found["names"])
    # A container that began with the fix can't run older files of it. Which base it stands on is known from its packages.
    files = () if found["began"] else seen.scan.files
    pending = {name: why for name, why in seen.pending.items() if name in names}
    seen = replace(seen, scan=replace(seen.scan, files=files), base="", pending=pending)
    proof = evidence.judge(seen, host, owners, names)
    old = [file for file in proof.old if (file.package or owners.get(file.path)) in names]
    if found["words"] == MentionKind.NOT:
        return CveVerdict(CveState.UNKNOWN, ("its changelog does not say that it is closed",))
    if old or pending:
        return CveVerdict(CveState.OLD_CODE_RUNS, proof.reasons)
    if found["disk"] == FixState.DOUBT:
        return CveVerdict(CveState.UNKNOWN, ("its changelog does not say that it is closed altogether",))
    if own and found["own"]:
        unowned = [file.path for file in files if not (file.package or owners.get(file.path))]
        runs = (f"it runs old files, such as {unowned[0]}, whose package is not known",) if unowned else ()
        return CveVerdict(CveState.UNKNOWN, ("only its own records say that its own packages have the fix", *runs))
    return CveVerdict(CveState.PROVEN) if proof.proven else CveVerdict(CveState.UNKNOWN, proof.reasons)


def without_fix(found: FoundCve) -> CveVerdict:
    """The state where the packages lack the fix, whatever runs."""
    state = CveState.OPEN if found["disk"] == FixState.OPEN else CveState.FIX_AVAILABLE
    told = (f"its changelog says that {found['fixed']} closed it, and the data does not",)
    disputed = told if state is CveState.OPEN and found["fixed"] else ()
    return CveVerdict(state, (f"it has {some(found['without'], _NAMED)}", *disputed))


def is_plain(seen: Evidence) -> bool:
    """Whether nothing was found in a container, so that the verdict on it is that on each other such one."""
    nothing = not (seen.scan.files or seen.scan.problem or seen.shadows or seen.shadow_problem or seen.fallen)
    return nothing and seen.busy is None and not seen.covered and seen.app is None


def unknown_of(each: CveSet, *, running: bool) -> str:
    """Why it is not known which CVEs were closed since a container's start; empty: it is."""
    if running and not each["began"]:
        return "which packages it began with is not known, and so is what was closed since"
    return ""
