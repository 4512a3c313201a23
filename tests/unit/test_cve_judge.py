"""The state of a CVE in a container, from its packages and from what runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lxcfleet.launcher.items.cves import FoundCve
from lxcfleet.patch.cve.judge import is_plain, verdict
from lxcfleet.patch.shadow.files import Shadow, ShadowKind
from lxcfleet.patch.stale.judge import OldFile, Process, StaleScan, Why
from lxcfleet.patch.verify.evidence import Evidence, OwnedShadow
from lxcfleet.spec.states import CveState

LIBRARY = "/usr/lib/libssl.so.3"
OLD = OldFile(LIBRARY, Why.REPLACED, "base", (Process(1, "nginx"),))
GONE = OldFile("/usr/lib/libold.so.1", Why.REMOVED, "base", (Process(1, "nginx"),))
CLEAN = Evidence(StaleScan("web", 2, 8), ())
OWNERS = {LIBRARY: "libssl3:amd64"}


def found(**more: Any) -> FoundCve:
    each: dict[str, Any] = {
        "cve": "CVE-2026-0001", "source": "openssl", "packages": ["libssl3"], "names": ["libssl3", "libssl3:amd64"],
        "disk": "fixed", "own": False, "began": False, "without": [], "fixed": "3.0-2", "line": "* CVE-2026-0001",
        "words": "closed", "urgency": "", "remote": None, "description": "", **more,
    }  # fmt: skip
    return each  # type: ignore[return-value]


def seen(*files: OldFile, **more: Any) -> Evidence:
    return replace(CLEAN, scan=StaleScan("web", 2, 8, files), **more)


SHADOW = OwnedShadow(Shadow(LIBRARY, ShadowKind.FILE, False, 1.0, 2.0, False, "delta", True), "libssl3:amd64", "3")


@pytest.mark.parametrize(
    ("each", "evidence", "state"),
    [
        (found(), CLEAN, CveState.PROVEN),
        (found(), seen(OLD), CveState.OLD_CODE_RUNS),
        (found(), seen(replace(OLD, why=Why.MONITOR)), CveState.OLD_CODE_RUNS),
        (found(), seen(replace(OLD, why=Why.SERVED, processes=(), package="libssl3:amd64")), CveState.OLD_CODE_RUNS),
        (found(), seen(replace(OLD, path="/usr/bin/perl")), CveState.PROVEN),
        (found(), seen(GONE), CveState.UNKNOWN),
        (found(began=True), seen(OLD), CveState.PROVEN),
        (found(began=True), seen(shadows=(SHADOW,)), CveState.UNKNOWN),
        (found(), seen(shadows=(SHADOW,)), CveState.UNKNOWN),
        (found(), seen(busy="restart"), CveState.UNKNOWN),
        (found(), replace(CLEAN, scan=StaleScan("web", 1, 1, (), "no")), CveState.UNKNOWN),
        (found(), replace(CLEAN, scan=StaleScan("web", 1, 1, (OLD,), "no")), CveState.OLD_CODE_RUNS),
        (found(), seen(fallen="exit 1"), CveState.UNKNOWN),
        (found(), seen(covered={"/usr/lib": ("libssl3:amd64",)}), CveState.UNKNOWN),
        (found(), seen(pending={"libssl3": "it asks for a reboot"}), CveState.OLD_CODE_RUNS),
        (found(), seen(pending={"linux-image-1": "the host runs another"}), CveState.PROVEN),
        (found(), seen(base="it stands on generation 3"), CveState.PROVEN),
        (found(disk="fixable", without=["libssl3 3.0-1"]), seen(OLD), CveState.FIX_AVAILABLE),
        (found(disk="open", without=["libssl3 3.0-1"]), CLEAN, CveState.OPEN),
        (found(disk="doubt", words="partly"), CLEAN, CveState.UNKNOWN),
        (found(disk="doubt", words="partly"), seen(OLD), CveState.OLD_CODE_RUNS),
        (found(disk="doubt", words="not"), seen(OLD), CveState.UNKNOWN),
    ],
)
def test_states(each: FoundCve, evidence: Evidence, state: CveState) -> None:
    judged = verdict(each, evidence, "", OWNERS, own=False)
    assert judged.state is state
    assert bool(judged.why) == (state is not CveState.PROVEN)


def test_nothing_is_proven_while_dpkg_is_at_work() -> None:
    assert verdict(found(), CLEAN, "libc6 is unpacked, not configured", OWNERS, own=False).state is CveState.UNKNOWN


def test_a_containers_own_package_is_never_proven() -> None:
    own = found(own=True)
    judged = verdict(own, CLEAN, "", OWNERS, own=True)
    assert (judged.state, judged.why) == (CveState.UNKNOWN, ("only its own records say that its own packages have the fix",))
    assert "old files" in verdict(own, seen(replace(OLD, path="/usr/sbin/nginx")), "", OWNERS, own=True).why[1]
    assert verdict(own, seen(OLD), "", OWNERS, own=True).state is CveState.OLD_CODE_RUNS
    assert verdict(found(), CLEAN, "", OWNERS, own=True).state is CveState.PROVEN


def test_a_disagreement_is_told() -> None:
    (_, told) = verdict(found(disk="open", without=["libssl3 3"]), CLEAN, "", OWNERS, own=False).why
    assert told == "its changelog says that 3.0-2 closed it, and the data does not"


def test_plain_containers_are_alike() -> None:
    assert is_plain(CLEAN)
    others = (seen(OLD), seen(busy="x"), seen(shadows=(SHADOW,)), seen(fallen="x"), seen(covered={"/": ("a",)}))
    assert not any(map(is_plain, others))
