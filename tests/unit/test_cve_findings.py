"""Which CVEs concern sets of packages, and what these have of the fixes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from lxcfleet.base.present import Bottom
from lxcfleet.base.present import Shelf as Layers
from lxcfleet.base.stack import Layer, Stack
from lxcfleet.patch.cve import findings as findings_module
from lxcfleet.patch.cve import shelf as shelves
from lxcfleet.patch.cve.changelog import Changelog, MentionKind
from lxcfleet.patch.cve.findings import CveResult, Data, Findings, FixState, PackageSet
from lxcfleet.patch.cve.inventory import Package, read
from lxcfleet.patch.cve.shelf import ChangelogShelf, OfBase, OfContainer
from lxcfleet.patch.cve.tracker import Hole, parse

from .test_cve_changelog import ONE, TWO, entry

THREE = "CVE-2026-0003"
NEWER = "3.0-3"
LOG = entry(NEWER, f"  * {ONE}") + entry("3.0-2", f"  * {TWO}") + entry("3.0-1", "  * x")


class Files:
    """Files in memory."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = {f"/usr/share/doc/{path}": text for path, text in files.items()}
        self.read_of: list[str] = []

    def read(self, path: str, most: int) -> bytes | None:
        text = self._files.get(path)
        if text is None:
            return None
        self.read_of.append(path)
        return (gzip.compress(text.encode()) if path.endswith(".gz") else text.encode())[:most]


def package(name: str, version: str, source: str = "", source_version: str = "") -> Package:
    return Package(name, "amd64", version, source or name, source_version or version)


def packages(*each: Package) -> dict[str, Package]:
    return {f"{one.name}:{one.architecture}": one for one in each}


def ssl(version: str) -> dict[str, Package]:
    return packages(package("libssl3", version, "openssl"), package("openssl", version))


def found(
    host: Mapping[str, Package], groups: Sequence[PackageSet], logs: Mapping[str, str], data: Data | None = None,
    only: Sequence[str] = (),
) -> list[dict[str, CveResult]]:  # fmt: skip
    """The results of each group, by CVE."""
    findings = Findings(host, ChangelogShelf(Files(logs), only), data, only)
    findings.find(groups)
    return [{(each := findings.results[index]).cve: each for index in group.results} for group in groups]


def group(disk: Mapping[str, Package], began: Mapping[str, Package] | None, **more: object) -> PackageSet:
    return PackageSet(disk, began, ChangelogShelf(Files({})), **more)  # type: ignore[arg-type]


def data(text: str, moment: float = 0.0, cves: Sequence[str] = ()) -> Data:
    return Data(parse(text.encode(), {"openssl", "libssl3", "bash"}, cves), moment)


CUT = "\n# Older entries have been removed from this changelog.\n"
LOGS = {"openssl/changelog.Debian.gz": LOG}
HOST = ssl(NEWER)


def test_what_the_host_closed_since_the_containers_began() -> None:
    old, new, unknown = group(HOST, ssl("3.0-1")), group(HOST, ssl("3.0-3")), group(HOST, None)
    of_old, of_new, of_unknown = found(HOST, [old, new, unknown], LOGS)
    assert {cve: (each.disk, each.began, each.fixed) for cve, each in of_old.items()} == {
        ONE: (FixState.FIXED, False, "3.0-3"), TWO: (FixState.FIXED, False, "3.0-2"),
    }  # fmt: skip
    assert all((of_new[cve].disk, of_new[cve].began) == (FixState.FIXED, True) for cve in (ONE, TWO))
    assert not any(each.began for each in of_unknown.values())


def test_a_container_that_began_between_two_fixes() -> None:
    first, second = found(HOST, [group(HOST, ssl("3.0-1")), group(HOST, ssl("3.0-2"))], LOGS)
    assert [second[ONE].began, second[TWO].began] == [False, True]
    assert [first[ONE].began, first[TWO].began] == [False, False]


def test_a_generation_lacks_what_the_host_closed() -> None:
    disk = ssl("3.0-2")
    (results,) = found(HOST, [group(disk, disk, same=False)], LOGS)
    assert set(results) == {ONE}
    assert results[ONE].disk is FixState.FIXABLE
    assert [each.name for each in results[ONE].without] == ["libssl3", "openssl"]


def test_nothing_changed_nothing_is_told() -> None:
    assert found(HOST, [group(HOST, HOST)], LOGS) == [{}]


def test_a_downgrade_of_the_host_closes_nothing() -> None:
    """Containers began with the fixes, and lose them with their next start: no changelog of the host names these."""
    host = ssl("3.0-1")
    older = {"openssl/changelog.Debian.gz": entry("3.0-1", f"  * {THREE}")}
    assert found(host, [group(host, HOST)], older) == [{}]
    # A generation from before the downgrade has what the host has not.
    (results,) = found(host, [group(HOST, HOST, same=False)], older)
    assert not any(each.disk is FixState.FIXABLE for each in results.values())


def test_a_source_that_only_one_container_has() -> None:
    other = {**HOST, **packages(package("nginx", "1.0-2"))}
    log = entry("1.0-2", f"  * {THREE}", source="nginx")
    own = PackageSet(other, HOST, ChangelogShelf(Files({"nginx/changelog.Debian.gz": log})), same=False)
    assert found(HOST, [own], LOGS) == [{}]
    assert found(HOST, [own, group(HOST, HOST)], LOGS, only=[THREE])[0][THREE].disk is FixState.FIXED


def test_what_a_container_closed_itself_counts_for_it_alone() -> None:
    log = entry("3.0-4", f"  * {THREE}") + LOG
    disk = ssl("3.0-4")
    own = PackageSet(disk, HOST, ChangelogShelf(Files({"openssl/changelog.Debian.gz": log})), same=False, base=HOST)
    mine, theirs = found(HOST, [own, group(HOST, HOST)], LOGS)
    assert set(mine) == {THREE}
    assert (mine[THREE].disk, mine[THREE].own) == (FixState.FIXED, True)
    assert not theirs


@pytest.mark.parametrize(
    ("logs", "why"),
    [
        ({}, "it has no changelog"),
        ({"openssl/changelog.Debian.gz": entry("3.0-2", "  * x")}, "that of openssl 3.0-2"),
        ({"openssl/changelog.Debian.gz": entry(NEWER, "  * x", source="other")}, "that of other 3.0-3"),
        ({"openssl/changelog.Debian.gz": entry(NEWER, f"  * {ONE}")}, "does not reach back to 3.0-1"),
        (
            {"openssl/changelog.Debian.gz": entry(NEWER, f"  * {ONE}") + CUT},
            "older entries were removed",
        ),
    ],
)  # fmt: skip
def test_a_changelog_that_does_not_tell_all(logs: dict[str, str], why: str) -> None:
    one = group(HOST, ssl("3.0-1"))
    (results,) = found(HOST, [one], logs)
    assert [(each.source, why in each.why) for each in one.unread] == [("openssl", True)]
    assert set(results) == ({ONE} if "reach" in why or "older" in why else set())


def test_any_package_of_the_source_may_have_the_changelog() -> None:
    (results,) = found(HOST, [group(HOST, ssl("3.0-1"))], {"libssl3/changelog.Debian": LOG})
    assert set(results) == {ONE, TWO}
    native = packages(package("apt", "2.1"))
    logs = {"apt/changelog.gz": entry("2.1", f"  * {ONE}", source="apt") + entry("2.0", "  * x", source="apt")}
    (results,) = found(native, [group(native, packages(package("apt", "2.0")))], logs)
    assert set(results) == {ONE}


def test_a_build_without_a_change_of_the_source() -> None:
    host = packages(package("bash", "5.2-2+b8", "bash", "5.2-2"))
    logs = {"bash/changelog.Debian.gz": entry("5.2-2", f"  * {ONE}", source="bash") + entry("5.2-1", "  * x", source="bash")}
    (results,) = found(host, [group(host, packages(package("bash", "5.2-1+b1", "bash", "5.2-1")))], logs)
    assert set(results) == {ONE}


def test_a_part_that_is_not_closed_is_left_in_doubt() -> None:
    logs = {"openssl/changelog.Debian.gz": entry(NEWER, f"  * partially fix {ONE}") + entry("3.0-2", "  * x")}
    (results,) = found(HOST, [group(HOST, ssl("3.0-2"))], logs)
    cve = results[ONE]
    assert (cve.disk, cve.words, cve.line) == (FixState.DOUBT, MentionKind.PARTLY, f"* partially fix {ONE}")


def test_one_package_of_a_source_that_was_held_back() -> None:
    held = packages(package("libssl3", "3.0-2", "openssl"), package("openssl", NEWER))
    (results,) = found(held, [group(held, ssl("3.0-1"))], LOGS)
    assert results[ONE].disk is FixState.FIXABLE
    assert [each.name for each in results[ONE].without] == ["libssl3"]


def test_a_version_for_a_stable_suite_has_what_it_was_made_from() -> None:
    """2-1~deb12u1 is made from 2-1, and older by its number."""
    text = entry("2-1~deb12u1", "  * Rebuild for bookworm") + entry("2-1", f"  * {ONE}") + entry("1-1", f"  * {TWO}")
    logs = {"openssl/changelog.Debian.gz": text}
    host = ssl("2-1~deb12u1")
    (results,) = found(host, [group(host, ssl("1-1"))], logs)
    assert {cve: each.disk for cve, each in results.items()} == {ONE: FixState.FIXED}
    log = ChangelogShelf(Files(logs)).of("openssl", list(host.values()))
    assert isinstance(log, Changelog)
    assert set(log.closed_since("0")) == {ONE, TWO}
    assert not log.closed_since("2-1")
    assert not log.closed_since("2-1~deb12u1")


def test_an_old_kernel_that_is_left_installed() -> None:
    old, new = (package(f"linux-image-6.1.0-{n}-amd64", f"6.1.{n}-1", "linux-signed-amd64") for n in (38, 39))
    logs = {
        f"{new.name}/changelog.Debian.gz": entry("6.1.39-1", f"  * {ONE}", source="linux-signed-amd64")
        + entry("6.1.38-1", "  * x", source="linux-signed-amd64")
    }
    host = packages(old, new)
    (results,) = found(host, [group(host, packages(old))], logs)
    assert results[ONE].disk is FixState.FIXED
    assert [each.name for each in results[ONE].packages] == [new.name]


def test_each_changelog_is_read_once_for_all_sets() -> None:
    files = Files(LOGS)
    findings = Findings(HOST, ChangelogShelf(files))
    findings.find([group(HOST, ssl(version)) for version in ("3.0-1", "3.0-2", "2", "1")])
    assert len(files.read_of) == 1


# -- debsecan's data ---------------------------------------------------------------------------------------------

OPEN_DATA = f"VERSION 0\n{ONE},SH  ,openssl,,open\n{TWO},S  F,openssl,3.0-9,fixable\n{THREE},S  F,openssl,3.0-3,closed\n"


def test_what_the_data_knows() -> None:
    (results,) = found(HOST, [group(HOST, HOST)], {}, data(OPEN_DATA, 1e12))
    assert {cve: each.disk for cve, each in results.items()} == {ONE: FixState.OPEN, TWO: FixState.FIXABLE}
    assert results[ONE].holes[0].urgency == "high"
    (results,) = found(HOST, [group(HOST, ssl("3.0-1"))], {}, data(OPEN_DATA, 1e12))
    assert results[THREE].disk is FixState.FIXED


def test_a_changelog_that_came_after_the_data() -> None:
    text = f"VERSION 0\n{ONE},S   ,openssl,,open\n"
    (before,) = found(HOST, [group(HOST, ssl("3.0-1"))], LOGS, data(text, 0.0))
    assert before[ONE].disk is FixState.FIXED
    (unchanged,) = found(HOST, [group(HOST, HOST)], LOGS, data(text, 0.0))
    assert unchanged[ONE].disk is FixState.FIXED
    (after,) = found(HOST, [group(HOST, ssl("3.0-1"))], LOGS, data(text, 1e12))
    assert (after[ONE].disk, after[ONE].fixed) == (FixState.OPEN, "3.0-3")


def test_a_hole_of_a_binary_package() -> None:
    text = f"VERSION 0\n{ONE},B   ,libssl3,3.0-4,x\n{TWO},B   ,libssl3,3.0-3,x\n"
    (results,) = found(HOST, [group(HOST, HOST)], {}, data(text, 1e12))
    assert list(results) == [ONE]
    assert (results[ONE].source, [each.name for each in results[ONE].without]) == ("openssl", ["libssl3"])


def test_one_cve_wherever_it_is() -> None:
    findings = Findings(HOST, ChangelogShelf(Files(LOGS), [TWO]), None, [TWO])
    one = group(HOST, HOST)
    findings.find([one])
    assert [findings.results[index].cve for index in one.results] == [TWO]
    assert findings.named == {TWO}
    nowhere = Findings(HOST, ChangelogShelf(Files(LOGS), [THREE]), None, [THREE])
    nowhere.find([group(HOST, HOST)])
    assert (nowhere.results, nowhere.named) == ([], set())
    of_data = data(f"VERSION 0\n{THREE},S   ,nothere,,x\n", 1e12, [THREE])
    elsewhere = Findings(HOST, ChangelogShelf(Files(LOGS), [THREE]), of_data, [THREE])
    elsewhere.find([group(HOST, HOST)])
    assert (elsewhere.results, elsewhere.named) == ([], {THREE})


def test_a_hole_knows_its_versions() -> None:
    hole = Hole(ONE, "x", False, "2.0", ("1.0-1+deb12u1",), False, "", None, "")
    assert [hole.has(each) for each in ("1.0-1", "1.0-1+deb12u1", "2.0", "1.0-1+deb12u01")] == [True, False, False, False]


# -- dpkg's status ---------------------------------------------------------------------------------------------------

STATUS = b"""Package: libssl3
Status: install ok installed
Architecture: amd64
Source: openssl (3.0-3)
Version: 3.0-3+b1
Description: x
 Version: 9

Package: bash
Status: hold ok unpacked
Architecture: amd64
Version: 5.2-1

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: foo
Status: install ok installed
Architecture: i386
Source: bar
Version: 2:1-1
"""


def test_status_with_sources() -> None:
    found = read(STATUS)
    assert found["libssl3:amd64"] == Package("libssl3", "amd64", "3.0-3+b1", "openssl", "3.0-3")
    assert found["bash:amd64"].source_version == "5.2-1"
    assert found["foo:i386"] == Package("foo", "i386", "2:1-1", "bar", "2:1-1")
    assert set(found) == {"libssl3:amd64", "bash:amd64", "foo:i386"}
    assert read(b"\0\xff" * 100 + b"\n\nPackage: x\nStatus:\nVersion: 1\n\n") == {}
    assert len(read(b"\n\n".join(b"Package: a%d\nStatus: i o installed\nVersion: 1" % n for n in range(100)), 10)) == 10


# -- changelogs on disk ----------------------------------------------------------------------------------------------


def put(root: Path, path: str, text: str | bytes) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode() if isinstance(text, str) else text
    file.write_bytes(gzip.compress(raw) if path.endswith(".gz") and not raw.startswith(b"\x1f\x8b") else raw)
    return file


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    (tmp_path / "delta").mkdir()
    (tmp_path / "base").mkdir()
    top = Layer("delta", str(tmp_path / "delta"), None, False, False, False, "trusted.overlay.opaque")
    return Stack((top, Layer("base", str(tmp_path / "base"), "/nowhere", True, True, False, None)))


DOC = "/usr/share/doc"
OPENSSL = [package("openssl", NEWER)]


def test_a_link_to_another_packages_directory(tmp_path: Path, stack: Stack) -> None:
    put(tmp_path / "base", f"{DOC}/libssl3/changelog.Debian.gz", LOG)
    (tmp_path / f"base{DOC}/openssl").symlink_to("libssl3")
    found = ChangelogShelf(OfBase(Bottom(stack.bottom))).of("openssl", OPENSSL)
    assert isinstance(found, Changelog)


def of_container(stack: Stack) -> Changelog | str:
    with Layers().present(stack) as present:
        return ChangelogShelf(OfContainer(present)).of("openssl", OPENSSL)


def test_a_containers_own_changelog(tmp_path: Path, stack: Stack) -> None:
    put(tmp_path / "base", f"{DOC}/openssl/changelog.Debian.gz", entry("3.0-2", "  * x"))
    put(tmp_path / "delta", f"{DOC}/openssl/changelog.Debian.gz", LOG)
    assert isinstance(of_container(stack), Changelog)


def test_a_link_out_of_a_container_leads_nowhere(tmp_path: Path, stack: Stack) -> None:
    put(tmp_path, "secret", LOG)
    (tmp_path / f"delta{DOC}/openssl").mkdir(parents=True)
    (tmp_path / f"delta{DOC}/openssl/changelog").symlink_to(tmp_path / "secret")
    (tmp_path / f"delta{DOC}/openssl/changelog.Debian").symlink_to("../" * 20 + str(tmp_path / "secret"))
    (tmp_path / f"delta{DOC}/openssl/changelog.gz").symlink_to("changelog.gz")
    (tmp_path / f"delta{DOC}/openssl/changelog.Debian.gz").mkdir()
    assert of_container(stack) == "it has no changelog"


def test_bombs_and_rubbish_in_a_container(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "_MOST", 1 << 20)
    worker = zlib.compressobj(9, wbits=31)
    bomb = b"".join(worker.compress(bytes(1 << 20)) for _ in range(50)) + worker.flush()
    put(tmp_path / "delta", f"{DOC}/openssl/changelog.Debian.gz", bomb)
    put(tmp_path / "delta", f"{DOC}/openssl/changelog.gz", b"\x1f\x8b rubbish")
    assert isinstance(of_container(stack), str)
    long = LOG + "x\n" * (1 << 20)
    put(tmp_path / "delta", f"{DOC}/openssl/changelog.Debian.gz", long)
    found = of_container(stack)
    assert isinstance(found, Changelog)
    assert found.cut


def test_a_container_has_so_many_bytes_for_all(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelves, "_OWN_BYTES", len(LOG))
    put(tmp_path / "delta", f"{DOC}/openssl/changelog.Debian.gz", entry("1", "  * x") * 9)
    put(tmp_path / "delta", f"{DOC}/openssl/changelog.Debian", LOG)
    found = of_container(stack)
    assert isinstance(found, str)
    assert "more than are read" in found


# -- limits ----------------------------------------------------------------------------------------------------------


def test_a_container_that_says_it_has_too_much_is_not_known_and_harms_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_module, "_MOST_NEW", 50)
    monkeypatch.setattr(findings_module, "_MOST_OWN", 20)
    many = packages(*(package(f"lib{number}", "3.0-1", "openssl") for number in range(100)))
    claims = "".join(entry("3.0-9", f"  * CVE-2026-{number:05}") for number in range(30)) + LOG
    log = {"openssl/changelog.Debian.gz": claims}
    wide = PackageSet(many, HOST, ChangelogShelf(Files({})), same=False, base=HOST)
    loud = PackageSet(ssl("3.0-9"), HOST, ChangelogShelf(Files(log)), same=False, base=HOST)
    fair = PackageSet(ssl("3.0-1"), HOST, ChangelogShelf(Files({})), same=False, base=HOST)
    plain = group(HOST, ssl("3.0-1"))
    of_wide, of_loud, of_fair, of_plain = found(HOST, [wide, loud, fair, plain], LOGS)
    assert [each.cut for each in (wide, loud, fair, plain)] == [True, True, False, False]
    assert (of_wide, of_loud) == ({}, {})
    assert set(of_fair) == set(of_plain) == {ONE, TWO}


def test_no_set_is_looked_at_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_module, "_SECONDS", -1.0)
    one = group(HOST, ssl("3.0-1"))
    assert (found(HOST, [one], LOGS), one.cut) == ([{}], True)
