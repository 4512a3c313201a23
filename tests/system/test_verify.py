"""Proof that a patch is in the containers, and the files in their deltas that keep it out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .debs import Package, create_mapping
from .harness import Fleet, until

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Package]:
    """A package with version 1 on the host and version 2 built."""
    if os.geteuid() != 0 or shutil.which("dpkg-deb") is None:
        pytest.skip("needs root and dpkg")
    made = Package(f"lxcfleet-proof-{os.getpid()}", tmp_path_factory.mktemp("packages"))
    try:
        assert made.dpkg("--install", made.build("1")) == 0
        made.build("2")
        yield made
    finally:
        made.purge()


@pytest.fixture
def one(package: Package) -> Package:
    """The package, with version 1 on the host."""
    assert package.dpkg("--install", package.deb("1")) == 0
    return package


def test_the_life_of_a_patch(fleet: Fleet, one: Package, tmp_path: Path) -> None:
    """The fleet is proven; a patch makes some containers not proven; after their restart all are proven again."""
    mapping, others = create_mapping(fleet, one, 3, 2)
    stopped = fleet.name("stopped")
    fleet.ok("create", stopped, "--no-start", "--", "sleep", "infinity")
    before = json.loads(fleet.ok("verify", "-f", "json"))
    assert before["proven"]
    assert {record["name"] for record in before["containers"]} == {*mapping, *others, stopped}
    one.dpkg("--install", one.deb("2"))
    ran = fleet.run("verify", "-f", "json", "--package", one.name)
    assert ran.status == 4
    assert ran.json["packages"] == {one.name: "2"}
    assert ran.json["base"] != before["base"]
    for record in ran.json["containers"]:
        assert record["proven"] is (record["name"] not in mapping), record
        assert [file["path"] for file in record["old"]] == [str(one.library)] * (record["name"] in mapping)
    assert fleet.run("verify", "--package", "dpkg").status == 0, "no file of dpkg is old"
    fleet.ok("restart", *mapping)
    after = json.loads(fleet.ok("verify", "-f", "json", "--package", one.name))
    restarted = {record["name"]: record["restarted"] for record in after["containers"]}
    assert restarted[stopped] is None
    known = {record["name"]: record["restarted"] for record in before["containers"]}
    assert all(restarted[name] == known[name] for name in others)
    assert fleet.run("verify", "--package", "no-such-package").status == 1


def test_a_container_that_opened_data_before_a_patch_still_has_the_old_data(fleet: Fleet, one: Package) -> None:
    """No process has the file open. Yet a process that opens it gets the old one, until the container is restarted."""
    reader, other = fleet.name("reader"), fleet.name("other")
    for name in (reader, other):
        fleet.create(name)
    data, manual = one.home / "data", Path("/usr/share/doc") / one.name / "README"
    for version in ("5", "6"):
        one.build(version, texts={str(data): f"{version}\n", str(manual): f"{version}\n"})
    one.dpkg("--install", one.deb("5"))
    fleet.ok("restart", reader, other)
    assert fleet.inside(reader, f"cat {data} {manual}") == "5\n5"
    assert fleet.inside(other, f"cat {manual}") == "5"
    for _ in range(2):  # the first verify must not make more files stale for the second
        assert fleet.run("verify", "--package", one.name).status == 0
    one.dpkg("--install", one.deb("6"))
    assert fleet.inside(reader, f"cat {data}") == "5"
    assert fleet.inside(other, f"cat {data}") == "6"
    for arguments in (("verify",), ("verify", "--package", one.name)):
        records = {record["name"]: record for record in fleet.run(*arguments, "-f", "json").json["containers"]}
        assert records[reader]["reasons"] == [f"serves old files of {one.name}"], arguments
        assert (records[other]["reasons"], records[other]["compared"] > 0) == ([], True)
    deep = {record["name"]: record for record in fleet.run("verify", "--deep", "-f", "json").json["containers"]}
    assert [deep[name]["reasons"] for name in (reader, other)] == [[f"serves old files of {one.name}"]] * 2
    (stale,) = [record for record in fleet.json_any("stale") if record["stale"]]
    assert [(file["path"], file["why"], file["package"]) for file in stale["files"]] == [(str(data), "served", one.name)]
    assert fleet.run("patch", "apply", "--min-healthy-time", "0").status == 0
    assert fleet.inside(reader, f"cat {data}") == "6"
    assert fleet.run("verify", "--deep", reader).status == 0


def test_files_that_a_patch_took_away_are_served_until_the_restart(fleet: Fleet, one: Package) -> None:
    """A certificate that is no longer trusted is such a file."""
    reader, other = fleet.name("reader"), fleet.name("other")
    for name in (reader, other):
        fleet.create(name)
    bad, good = (one.home / "certs" / name for name in ("bad", "good"))
    one.build("9", texts={str(bad): "bad", str(good): "good"})
    one.build("10", texts={str(good): "good"})
    one.dpkg("--install", one.deb("9"))
    fleet.ok("restart", reader, other)
    assert fleet.inside(reader, f"cat {bad} {good}") == "badgood"
    assert fleet.run("verify", "--package", one.name).status == 0
    one.dpkg("--install", one.deb("10"))
    assert not bad.exists()
    assert fleet.inside(reader, f"cat {bad}") == "bad"
    for arguments in (("verify",), ("verify", "--package", one.name), ("verify", "--deep")):
        records = {record["name"]: record for record in fleet.run(*arguments, "-f", "json").json["containers"]}
        assert records[reader]["reasons"] == [f"serves old files of {one.name}"], arguments
        assert [(file["path"], file["why"]) for file in records[reader]["old"]] == [(str(bad), "served")]
        assert records[other]["reasons"] == []
        assert not any("have no more" in left for left in records[reader]["not_compared"])
    (stale,) = [record for record in fleet.json_any("stale") if record["stale"]]
    assert stale["name"] == reader
    assert fleet.run("patch", "apply", "--min-healthy-time", "0").status == 0
    assert fleet.run("exec", reader, "--", "cat", str(bad)).status == 1
    assert fleet.run("verify", "--package", one.name).status == 0


def test_a_package_that_was_removed_is_proven_to_run_nowhere(fleet: Fleet, one: Package) -> None:
    """dpkg forgets its files."""
    (mapping,), (other,) = create_mapping(fleet, one, 1, 1)
    own = fleet.name("own")
    fleet.create(own)
    assert fleet.inside(own, f"cp {one.script} /tmp/job; rm {one.script}; cp /tmp/job {one.script}") == ""
    assert fleet.run("verify", "--package", one.name, mapping, other).status == 0
    one.purge()
    try:
        ran = fleet.run("verify", "-f", "json", "--package", one.name)
        assert (ran.status, ran.json["packages"], ran.json["gone"].keys()) == (4, {}, {one.name})
        records = {record["name"]: record for record in ran.json["containers"]}
        assert records[mapping]["reasons"] == ["1 of its processes runs old code"]
        assert str(one.library) in [file["path"] for file in records[mapping]["old"]]
        (why,) = records[own]["reasons"]
        assert why == f"it has 1 file of {one.name} of its own, which the host has no more: {one.script}"
        assert records[other]["proven"]
        fleet.ok("stop", mapping)
        assert fleet.run("verify", "--package", one.name, mapping, other).status == 0
        assert fleet.run("verify", "--package", f"{one.name}-never").status == 1
    finally:
        one.dpkg("--install", one.deb("1"))


def test_old_modules_that_an_interpreter_has_read_leave_its_container_unproven(fleet: Fleet, one: Package) -> None:
    module = f"lxcfleet_test_{os.getpid()}"
    path = f"/usr/lib/python3/dist-packages/{module}.py"
    for version in ("7", "8"):
        one.build(version, texts={path: f"VERSION = {version}\n"})
    one.dpkg("--install", one.deb("7"))
    name, other = fleet.name("app"), fleet.name("other")
    fleet.create(name, command=("--", "python3", "-c", f"import {module}, time; time.sleep(1e6)"))
    fleet.create(other)
    assert fleet.run("verify").status == 0
    one.dpkg("--install", one.deb("8"))
    ran = fleet.run("verify", "-f", "json")
    reasons = {record["name"]: record["reasons"] for record in ran.json["containers"]}
    assert reasons[other] == []
    assert f"may run old modules of {one.name}" in reasons[name]
    assert {(file["why"], file["package"]) for file in ran.json["containers"][0]["old"]} >= {("modules", one.name)}
    fleet.ok("restart", name)
    assert fleet.run("verify").status == 0


def test_modules_of_a_package_that_came_after_an_interpreter_began_are_not_old(fleet: Fleet, package: Package) -> None:
    module = f"lxcfleet_test_{os.getpid()}"
    for version in ("21", "22"):
        package.build(version, texts={f"/usr/lib/python3/dist-packages/{module}/__init__.py": f"VERSION = {version}\n"})
    package.purge()
    before, after = fleet.name("before"), fleet.name("after")
    fleet.create(before, command=("--", "python3", "-c", "import time; time.sleep(1e6)"))
    package.dpkg("--install", package.deb("21"))
    fleet.create(after, command=("--", "python3", "-c", f"import {module}, time; time.sleep(1e6)"))
    assert fleet.run("stale").status == 0, "nobody has read what was not there"
    package.dpkg("--install", package.deb("22"))
    assert {record["name"] for record in fleet.json_any("stale") if record["stale"]} == {after}


def test_modules_are_not_old_after_the_way_back_to_their_version(fleet: Fleet, one: Package) -> None:
    """A container that began with the version that is back has read no other, unless it looked one up meanwhile."""
    module = f"lxcfleet_test_{os.getpid()}"
    path = f"/usr/lib/python3/dist-packages/{module}.py"
    for version in ("11", "12"):
        one.build(version, texts={path: f"VERSION = {version}\n"})
    one.dpkg("--install", one.deb("11"))
    app, idle, between = fleet.name("app"), fleet.name("idle"), fleet.name("between")
    wait = "time.sleep(1e6)"
    fleet.create(app, command=("--", "python3", "-c", f"import {module}, time; {wait}"))
    fleet.create(idle, between, command=("--", "python3", "-c", f"import time; {wait}"))
    one.dpkg("--install", one.deb("12"))
    assert fleet.inside(between, f"cat {path}") == "VERSION = 12"
    stale = {record["name"] for record in fleet.json_any("stale") if record["stale"]}
    assert stale == {app, idle, between}, "each interpreter may have read the module"
    one.dpkg("--install", one.deb("11"))
    records = {record["name"]: record["reasons"] for record in fleet.run("verify", "-f", "json").json["containers"]}
    assert records[app] == []
    assert records[idle] == []
    assert records[between] != [], "the container has looked up the other version"


def test_a_frozen_container_is_looked_at_without_waiting_for_it(fleet: Fleet, one: Package) -> None:
    reader, other = fleet.name("reader"), fleet.name("other")
    for name in (reader, other):
        fleet.create(name)
    data = one.home / "data"
    for version in ("13", "14"):
        one.build(version, texts={str(data): version})
    one.dpkg("--install", one.deb("13"))
    fleet.ok("restart", reader, other)
    fleet.inside(reader, f"cat {data}")
    fleet.ok("freeze", reader, other)
    one.dpkg("--install", one.deb("14"))
    records = {record["name"]: record for record in fleet.run("verify", "--deep", "-f", "json").json["containers"]}
    assert records[reader]["reasons"] == [f"serves old files of {one.name}"]
    assert records[other]["reasons"] == []
    assert records[other]["processes"] > 0
    refused = fleet.run("exec", reader, "--", "true")
    assert refused.status == 125
    assert "frozen" in refused.err
    fleet.ok("unfreeze", reader, other)


def test_a_container_whose_process_1_has_another_root_is_not_proven(fleet: Fleet, one: Package) -> None:
    name, other = fleet.name("a"), fleet.name("b")
    fleet.create(name, options=["--privileged"])
    fleet.create(other)
    assert fleet.run("verify", "--deep").status == 0
    fleet.inside(name, "mount --make-rprivate / && mount -t tmpfs none /mnt && mkdir /mnt/old && cd /mnt && pivot_root . old")
    records = {record["name"]: record for record in fleet.run("verify", "--deep", "-f", "json").json["containers"]}
    assert records[other]["proven"]
    assert "process 1 has another root" in records[name]["reasons"][0]
    ran = fleet.run("stale", name)
    assert ran.status != 0
    assert "process 1 has another root" in ran.err


def test_nothing_is_proven_while_dpkg_is_half_way(fleet: Fleet, one: Package) -> None:
    fleet.create(fleet.name("a"))
    assert fleet.run("verify").status == 0
    assert one.dpkg("--install", one.build("3", scripts={"postinst": "exit 1"})) != 0
    ran = fleet.run("verify")
    assert ran.status == 4
    assert f"{one.name} is half-configured" in ran.out


def test_a_library_that_was_upgraded_inside_is_a_shadow(fleet: Fleet, one: Package) -> None:
    """The delta keeps the patch out until the shadow is removed. Other files of the delta stay."""
    name, path = fleet.name("a"), str(one.library)
    fleet.create(name)
    assert fleet.run("audit", "shadow").status == 0
    fleet.inside(name, f"cp {path} {path}.new && mv {path}.new {path} && rm {one.script} && echo mine >{one.home}/own")
    one.dpkg("--install", one.deb("2"))
    ran = fleet.run("audit", "shadow", "-f", "json")
    assert ran.status == 4
    (record,) = ran.json
    found = {shadow["path"]: (shadow["kind"], shadow["package"], shadow["version"]) for shadow in record["shadows"]}
    assert found == {path: ("file", one.name, "2"), str(one.script): ("removed", one.name, "2")}
    assert record["diverged"] is None
    ran = fleet.run("verify", "--package", one.name)
    assert ran.status == 4
    assert "2 files in its delta keep the host's out" in ran.out

    running = fleet.run("audit", "shadow", name, "--fix", path, "--yes")
    assert running.status == 1
    assert "what it has mounted must not change below it" in running.err
    fleet.ok("stop", name, "--timeout", "0")
    own = fleet.run("audit", "shadow", name, "--fix", f"{one.home}/own", "--yes")
    assert own.status == 1
    assert f"{one.home}/own: no shadow in {name} that can be removed" in own.err
    fleet.ok("audit", "shadow", name, "--fix", path, "--fix", str(one.script), "--dry-run")
    assert fleet.run("audit", "shadow").status == 4
    fleet.ok("audit", "shadow", name, "--fix", path, "--fix", str(one.script), "--yes")
    assert fleet.run("audit", "shadow").status == 0
    fleet.ok("start", name)
    assert fleet.inside(name, f"tail -n1 {path}; cat {one.home}/own") == "version 2\nmine"
    fleet.ok("verify", "--package", one.name)


def test_a_package_that_was_installed_again_inside_is_given_back_as_a_whole(fleet: Fleet, one: Package) -> None:
    """As `apt install --reinstall` does it: its files and dpkg's own are in the delta, and would keep each patch out."""
    name, deb = fleet.name("a"), one.deb("1").read_bytes()
    fleet.create(name)
    fleet.inside(name, f"cat >/root/one.deb && dpkg --install /root/one.deb && echo mine >{one.home}/own", input=deb)
    assert "which later patches do not reach" in fleet.ok("verify", name, "--package", one.name)
    one.dpkg("--install", one.deb("2"))
    assert fleet.run("verify", name, "--package", one.name).status == 4
    fleet.ok("stop", name, "--timeout", "0")
    (dry,) = fleet.json_any("audit", "shadow", name, "--fix-package", one.name, "--dry-run")["results"]
    assert {str(one.library), str(one.script), f"/var/lib/dpkg/info/{one.name}.list"} <= set(dry["removed"])
    fleet.ok("audit", "shadow", name, "--fix-package", one.name, "--yes")
    assert fleet.run("audit", "shadow").status == 0
    fleet.ok("start", name)
    assert fleet.inside(name, f"tail -n1 {one.library}; cat {one.home}/own") == "version 2\nmine"
    assert fleet.inside(name, f"dpkg-query -W -f '${{Version}} ${{Status}}' {one.name}") == "2 install ok installed"
    assert fleet.inside(name, f"dpkg --audit {one.name}; dpkg --verify {one.name}") == ""
    fleet.ok("verify", "--package", one.name)


def test_a_directory_that_was_removed_inside_is_a_shadow(fleet: Fleet, one: Package) -> None:
    name = fleet.name("a")
    fleet.create(name)
    fleet.inside(name, f"rm -r {one.home}")
    ran = fleet.run("audit", "shadow", "-f", "json")
    assert [(shadow["path"], shadow["kind"]) for shadow in ran.json[0]["shadows"]] == [(str(one.home), "removed")]
    assert fleet.run("verify", "--package", one.name).status == 4
    fleet.inside(name, f"mkdir {one.home}")
    ran = fleet.run("audit", "shadow", "-f", "json")
    assert [(shadow["path"], shadow["kind"]) for shadow in ran.json[0]["shadows"]] == [(str(one.home), "directory")]
    fleet.ok("verify", "--package", "dpkg")


def test_a_package_that_was_installed_inside_is_reported_and_is_no_shadow(fleet: Fleet, one: Package) -> None:
    name = fleet.name("a")
    fleet.create(name)
    extra = Package(f"{one.name}-extra", one.deb("1").parent)
    deb = extra.build("7")
    fleet.ok("exec", name, "--", "sh", "-c", "cat >/tmp/extra.deb && dpkg --install /tmp/extra.deb", input=deb.read_bytes())
    (record,) = fleet.json_any("audit", "shadow")
    assert record["diverged"] == {"added": {f"{extra.name}:all": "7"}, "removed": [], "changed": {}}
    assert record["shadows"] == []
    assert f"{name}: has packages of its own: {extra.name}:all 7" in fleet.run("audit", "shadow").out


def test_system_containers_have_no_shadows(fleet: Fleet) -> None:
    """A boot writes no file that hides a file of a package."""
    name = fleet.name("sys")
    fleet.create(name, command=())
    until(lambda: fleet.run("wait", name, "--for", "healthy").status == 0, 90, "the container is up")
    assert fleet.json_any("audit", "shadow") == [
        {"name": name, "state": "running", "shadows": [], "diverged": None, "mounts": {}, "app": None,
         "brings": [], "problem": None}
    ]
    (record,) = json.loads(fleet.ok("verify", "-f", "json"))["containers"]
    assert record["proven"]
    assert record["processes"] >= 2


PACK = """set -e; cd $(mktemp -d); mkdir -p p/DEBIAN p/etc
echo /etc/lft.conf >p/DEBIAN/conffiles; echo packed >p/etc/lft.conf
printf 'Package: lft\\nVersion: 1\\nArchitecture: all\\nMaintainer: n <n@n>\\nDescription: x\\n' >p/DEBIAN/control
dpkg-deb --build p p.deb; dpkg -i p.deb; rm /etc/lft.conf; dpkg -i p.deb; cat /etc/lft.conf"""


def test_a_package_in_a_container_brings_settings_again_that_are_missing(fleet: Fleet) -> None:
    """The mask hides the host's private ones, and dpkg would take that for the will of an administrator."""
    name = fleet.name("settings")
    fleet.create(name)
    assert fleet.inside(name, PACK).splitlines()[-1] == "packed"
