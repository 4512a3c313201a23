"""Shadows, and the proof that a patch is in a container."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lxcfleet.host.kernel import tree
from lxcfleet.host.packages import database
from lxcfleet.patch.shadow import files
from lxcfleet.patch.shadow.files import Shadow, ShadowFindings, ShadowKind, compare, find, parse_status, remove
from lxcfleet.patch.stale.judge import OldFile, Process, StaleScan, Why
from lxcfleet.patch.stale.served import ComparedFiles
from lxcfleet.patch.verify import covers
from lxcfleet.patch.verify.evidence import Evidence, OwnedShadow, fingerprint, judge, not_compared, note

from .layers_in import directories, put, stack_in

LIBRARY = "/usr/lib/libssl.so.3"
OLD = OldFile(LIBRARY, Why.REPLACED, "base", (Process(1, "nginx"), Process(2, "nginx")))
SHADOW = Shadow(LIBRARY, ShadowKind.FILE, False, 1.0, 2.0, False, "delta", True)
SERVED = StaleScan("web", 2, 8, (OldFile("/etc/ssl/certs/a.crt", Why.SERVED, "base", (), "ca-certificates"),))
READ = StaleScan("web", 2, 8, (OldFile("/usr/lib/python3/x.py", Why.MODULES, "base", OLD.processes, "python3-urllib3"),))
LEASING = StaleScan("web", 2, 8, (OldFile("/usr/bin/busybox", Why.CLIENT, "base", OLD.processes),))
WATCHED = StaleScan("web", 2, 8, (OldFile("/usr/lib/liblxc.so.1", Why.MONITOR, "base", OLD.processes),))
CLEAN = Evidence(StaleScan("web", 2, 8), ())


def test_a_clean_container_is_proven() -> None:
    assert judge(CLEAN, "", {}, ()).proven


@pytest.mark.parametrize(
    ("seen", "host", "reason"),
    [
        (CLEAN, "libc6 is half-configured", "the host itself is not in order: libc6 is half-configured"),
        (replace(CLEAN, busy="restart"), "", "it is busy: restart"),
        (replace(CLEAN, scan=StaleScan("web", 0, 0, problem="no")), "", "not all of it could be looked at: no"),
        (replace(CLEAN, shadow_problem="no"), "", "its delta could not be read: no"),
        (replace(CLEAN, scan=StaleScan("web", 2, 8, (OLD,))), "", "2 of its processes run old code"),
        (replace(CLEAN, shadows=(OwnedShadow(SHADOW, "libssl3", "3"),)), "", "1 file in its delta keeps the host's out"),
        (replace(CLEAN, pending={"linux-image-9": "no"}), "", "linux-image-9 takes effect with a reboot of the host: no"),
        (replace(CLEAN, scan=LEASING), "", "its DHCP client runs old code, which a restart of the container renews"),
        (replace(CLEAN, scan=WATCHED), "", "its monitor runs old code, which a restart of the container renews"),
        (replace(CLEAN, scan=SERVED), "", "serves old files of ca-certificates"),
        (replace(CLEAN, scan=READ), "", "may run old modules of python3-urllib3"),
        (replace(CLEAN, fallen="exit"), "", "a patch took it down, and it does not run: exit"),
    ],
)
def test_a_container_with_a_defect_is_not_proven(seen: Evidence, host: str, reason: str) -> None:
    assert judge(seen, host, {}, ()).reasons == (reason,)


def test_a_file_of_its_own_that_is_as_the_hosts_does_not_count_and_is_told() -> None:
    alike = OwnedShadow(replace(SHADOW, same=True), "libssl3", "3")
    seen = replace(CLEAN, shadows=(alike, OwnedShadow(replace(SHADOW, path="/etc/conf", same=True), "libssl3", "3")))
    assert judge(seen, "", {}, ("libssl3",)).proven
    assert note(seen) == "it has 1 file of its own like the host's so far, which later patches do not reach"
    assert not judge(replace(seen, shadows=(alike, OwnedShadow(SHADOW, "libssl3", "3"))), "", {}, ("libssl3",)).proven


def test_a_delta_that_shadows_half_of_a_package_does_not_prove_the_other_half() -> None:
    """Neither half may hide behind the other, and each is told."""
    other = OldFile("/usr/lib/libcrypto.so.3", Why.SERVED, "base", (), "libssl3")
    both = replace(CLEAN, scan=StaleScan("web", 2, 8, (other,)), shadows=(OwnedShadow(SHADOW, "libssl3", "3"),))
    expected = ("serves old files of libssl3", "1 file in its delta keeps the host's out")
    assert judge(both, "", {}, ("libssl3",)).reasons == expected
    assert judge(replace(both, scan=CLEAN.scan), "", {}, ("libssl3",)).reasons == expected[1:]
    assert judge(replace(both, shadows=()), "", {}, ("libssl3",)).reasons == expected[:1]
    assert judge(both, "", {}, ("libc6",)).proven, "a package that is in no half"


def test_a_container_that_was_stopped_after_its_fall_is_like_any_that_does_not_run() -> None:
    seen = replace(CLEAN, fallen="exit", stopped=True)
    assert judge(seen, "", {}, ()).proven
    assert note(seen) == "a patch took it down, and it was stopped since: exit"
    assert note(CLEAN) is None


def test_a_container_of_which_nothing_was_read_has_nothing_compared() -> None:
    seen = replace(CLEAN, scan=StaleScan("web", 0, 0, problem="no"))
    assert not_compared(seen, ComparedFiles()) == ["its processes, and the files that it is served: no"]
    left = not_compared(CLEAN, ComparedFiles(documentation=True), "no space")
    assert left[-1] == "files that packages had and have no more, as far as no process maps them (no space)"


def test_a_containers_own_settings_keep_no_fix_out() -> None:
    own = OwnedShadow(replace(SHADOW, path="/etc/ssl/openssl.cnf"), "openssl", "3")
    verdict = judge(replace(CLEAN, shadows=(own,)), "", {}, ())
    assert verdict.proven
    assert verdict.shadows == (own,)


def test_only_the_requested_packages_count() -> None:
    seen = replace(CLEAN, scan=StaleScan("web", 2, 8, (OLD,)), shadows=(OwnedShadow(SHADOW, "libssl3", "3"),))
    assert not judge(seen, "", {LIBRARY: "libssl3"}, ("libssl3",)).proven
    assert judge(seen, "", {LIBRARY: "libssl3"}, ("libc6",)).proven
    gone = replace(OLD, path="/usr/lib/libssl.so.2", why=Why.REMOVED)
    seen = replace(CLEAN, scan=StaleScan("web", 2, 8, (gone,)))
    assert not judge(seen, "", {}, ("libc6",)).proven, "it may have been libc6's"


def test_a_fingerprint_tells_hosts_apart() -> None:
    one = fingerprint({"libssl3": "3.0.20", "openssl": "3.0.20"})
    assert one == fingerprint({"openssl": "3.0.20", "libssl3": "3.0.20"})
    assert one != fingerprint({"libssl3": "3.0.22", "openssl": "3.0.20"})


# shadows


@pytest.fixture
def layers(tmp_path: Path) -> dict[str, Path]:
    return directories(tmp_path)


def look(layers: dict[str, Path]) -> ShadowFindings:
    (delta,) = find([("web", stack_in(layers))])
    assert ShadowFindings.from_json(delta.to_json()) == delta
    return delta


def test_shadows_beside_the_base(layers: dict[str, Path]) -> None:
    for name in ("new", "old", "same", "only-base"):
        put(layers["base"], f"/usr/lib/{name}", "one")
    put(layers["delta"], "/usr/lib/new", "two", 2000)
    put(layers["delta"], "/usr/lib/old", "two", 500)
    put(layers["delta"], "/usr/lib/same", "one")
    put(layers["delta"], "/usr/lib/own", "mine")
    put(layers["delta"], "/home/me/data", "mine")
    found = {each.path: (each.kind, each.age, each.same) for each in look(layers).shadows}
    assert found == {
        "/usr/lib/new": (ShadowKind.FILE, "newer", False),
        "/usr/lib/old": (ShadowKind.FILE, "older", False),
        "/usr/lib/same": (ShadowKind.FILE, "same", True),
    }


def test_links_and_files_in_place_of_directories(layers: dict[str, Path]) -> None:
    put(layers["base"], "/usr/share/doc/file")
    (layers["base"] / "usr/link").symlink_to("share")
    (layers["delta"] / "usr").mkdir()
    (layers["delta"] / "usr/link").symlink_to("elsewhere")
    put(layers["delta"], "/usr/share")
    one, two = look(layers).shadows
    assert (one.path, one.kind, one.directory, one.same) == ("/usr/link", ShadowKind.FILE, False, False)
    assert (two.path, two.directory) == ("/usr/share", True)
    assert two.hides("/usr/share/doc/file")
    assert not two.hides("/usr/shared")


def test_a_file_that_the_mask_hides_has_no_shadow(layers: dict[str, Path]) -> None:
    put(layers["base"], "/etc/fstab", "host")
    put(layers["base"], "/etc/shown", "host")
    put(layers["mask"], "/etc/fstab", "")
    put(layers["delta"], "/etc/fstab", "own")
    assert look(layers).shadows == ()
    put(layers["delta"], "/etc/shown", "own")
    assert [shadow.path for shadow in look(layers).shadows] == ["/etc/shown"]


def test_only_paths_that_the_base_has_are_walked(layers: dict[str, Path]) -> None:
    # This path is deeper than any that can be opened: it must not even be tried.
    here = os.open(layers["delta"], os.O_RDONLY)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
    finally:
        os.close(here)
    try:
        assert look(layers).shadows == ()
    finally:
        tree.remove(layers["delta"])


def test_the_packages_of_a_container(layers: dict[str, Path]) -> None:
    assert look(layers).packages is None
    put(layers["delta"], "/var/lib/dpkg/status", STATUS)
    assert look(layers).packages == {"jq:amd64": "1.6-2.1", "libssl3:amd64": "3.0.20-1"}


STATUS = """\
Package: jq
Status: install ok installed
Architecture: amd64
Version: 1.6-2.1
Description: a tool
 Package: not-a-field
 more

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libssl3
Status: hold ok installed
Architecture: amd64
Version: 3.0.20-1

garbage without a colon
\0\x01: x
"""


def test_more_packages_than_are_compared_are_told(layers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """1.9 million of them kept the daemon from answering anybody for three seconds."""
    many = "".join(f"Package: p{number}\nStatus: install ok installed\n\n" for number in range(50))
    put(layers["delta"], files.STATUS, many)
    assert len(look(layers).packages or ()) == 50
    monkeypatch.setattr(files, "_MAX_PACKAGES", 49)
    assert (look(layers).packages, look(layers).problem[:29]) == (None, f"{files.STATUS} has more")
    monkeypatch.setattr(files, "_MAX_PACKAGES", 50)
    monkeypatch.setattr(files, "_MAX_STATUS", len(many) - 1)
    assert look(layers).packages is None


def test_more_shadows_than_are_listed_are_told(layers: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcd":
        put(layers["base"], f"/usr/lib/{name}", "one")
        put(layers["delta"], f"/usr/lib/{name}", "two")
    monkeypatch.setattr(files, "_MAX_SHADOWS", 200)
    assert len(look(layers).shadows) == 2
    assert look(layers).problem == "it hides more of the host's files than are listed (2)"


def test_packages_that_differ() -> None:
    own = parse_status(STATUS.encode())
    diverged = compare(own, {"libssl3:amd64": "3.0.22-1", "vim:amd64": "9"})
    assert diverged.added == {"jq:amd64": "1.6-2.1"}
    assert diverged.changed == {"libssl3:amd64": ("3.0.20-1", "3.0.22-1")}
    assert diverged.removed == ("vim:amd64",)
    assert not compare(own, own)


def test_removing_takes_only_the_named_files_and_follows_no_link(layers: dict[str, Path], tmp_path: Path) -> None:
    kept, gone = put(layers["delta"], "/usr/lib/kept"), put(layers["delta"], "/usr/lib/gone")
    secret = put(tmp_path, "/secret/file")
    (layers["delta"] / "etc").symlink_to(secret.parent)
    remove(str(layers["delta"]), ["/usr/lib/gone"])
    assert kept.exists()
    assert not gone.exists()
    for path in ("/etc/file", "/../../secret/file"):
        with pytest.raises(OSError, match=r"Not a directory|cross-device"):
            remove(str(layers["delta"]), [path])
    with pytest.raises(OSError, match="directory"):
        remove(str(layers["delta"]), ["/usr/lib"])
    assert secret.exists()


def test_a_mount_over_files_of_a_package_is_told_and_keeps_only_that_package_from_being_proven() -> None:
    seen = replace(CLEAN, covered={"/usr/share/nginx": ("nginx-common", "libnginx:amd64")})
    assert judge(seen, "", {}, []).proven
    assert judge(seen, "", {}, ["openssl:amd64"]).proven
    proof = judge(seen, "", {}, ["libnginx:amd64", "nginx-common:all"])
    assert proof.reasons == ("the mount at /usr/share/nginx hides files of nginx-common, libnginx:amd64",)
    told = "files of nginx-common, libnginx:amd64 below /usr/share/nginx, where a mount hides them"
    assert told in not_compared(seen, ComparedFiles(True, False, ()))


def test_packages_below_a_mount_are_asked_for_only_where_the_host_has_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def below(place: str) -> dict[str, int]:
        asked.append(place)
        return {"few": 1, "many": 9}

    monkeypatch.setattr(database, "owners_below", below)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    (tmp_path / "empty").mkdir()
    places = [str(tmp_path / name) for name in ("full", "empty", "missing")]
    assert [covers.packages_below(place) for place in places] == [("many", "few"), (), ()]
    assert asked == places[:1]
