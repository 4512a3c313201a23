"""CVEs that a patch closed, in real containers: what runs on, what is proven, and what a container says of itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from .debs import Package, create_mapping
from .harness import Fleet

pytestmark = pytest.mark.system

CVE, HALF = "CVE-2099-0001", "CVE-2099-0002"


def changelog(name: str, *entries: tuple[str, str]) -> str:
    end = " -- A Maintainer <a@example.org>  Fri, 03 Apr 2026 14:29:32 +0200"
    return "\n".join(f"{name} ({version}) stable; urgency=medium\n\n  * {text}\n\n{end}\n" for version, text in entries)


@pytest.fixture
def package(tmp_path: Any) -> Iterator[Package]:
    """A package with version 1 on the host, and version 2, which closes a CVE, built."""
    if os.geteuid() != 0 or shutil.which("dpkg-deb") is None:
        pytest.skip("needs root and dpkg")
    made = Package(f"lxcfleet-hole-{os.getpid()}", tmp_path)
    doc = f"/usr/share/doc/{made.name}/changelog"
    one = ("1", "first")
    try:
        assert made.dpkg("--install", made.build("1", texts={doc: changelog(made.name, one)})) == 0
        text = changelog(made.name, ("2", f"{CVE}\n  * partially fix {HALF}"), one)
        made.build("2", texts={doc: text})
        yield made
    finally:
        made.purge()


def test_the_life_of_a_hole(fleet: Fleet, package: Package) -> None:
    (mapping,), (other,) = create_mapping(fleet, package, 1, 1)
    assert fleet.run("cve", "--package", package.name, "-q").out == ""
    package.dpkg("--install", package.deb("2"))

    def states(*arguments: str) -> dict[str, dict[str, str]]:
        """By CVE and container."""
        found = fleet.run("cve", "--package", package.name, "-f", "json", *arguments).json
        return {
            record["cve"]: {name: place["state"] for place in record["places"] for name in place["containers"]}
            for record in found["cves"]
        }

    assert fleet.run("cve", "--package", package.name).status == 4
    assert states() == {
        CVE: {mapping: "old-code-runs", other: "proven"}, HALF: {mapping: "old-code-runs", other: "unknown"},
    }  # fmt: skip
    assert states(other) == {CVE: {other: "proven"}, HALF: {other: "unknown"}}
    assert fleet.run("verify", "--cve", CVE).status == 4
    assert fleet.run("verify", "--cve", CVE, other).status == 0
    assert fleet.run("verify", "--cve", HALF, other).status == 4
    fleet.ok("restart", mapping)
    assert fleet.run("verify", "--cve", CVE).status == 0
    assert states()[CVE] == {mapping: "proven", other: "proven"}
    # A container's own records are its own word, and its links lead nowhere.
    stanza = f"Package: {package.name}\\nStatus: install ok installed\\nArchitecture: all\\nVersion: 3\\n"
    doc = f"/usr/share/doc/{package.name}"
    fleet.inside(other, f"printf '\\n{stanza}' >>/var/lib/dpkg/status; rm -r {doc}; ln -s /etc {doc}")
    assert states()[CVE] == {mapping: "proven", other: "unknown"}
    unread = fleet.run("cve", other, "-f", "json").json["unread"]
    assert [(each["source"], each["containers"]) for each in unread] == [(package.name, [other])]
    assert fleet.run("verify", "--cve", CVE, other).status == 4
