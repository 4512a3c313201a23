"""What goes with a package's shadows when they are taken away as a whole, and what stays."""

from __future__ import annotations

from lxcfleet.base.merge import records
from lxcfleet.patch.shadow.files import Shadow, ShadowKind
from lxcfleet.patch.verify.evidence import OwnedShadow
from lxcfleet.patch.verify.whole import is_meant, whole

INFO = "/var/lib/dpkg/info"


def shadow(path: str, kind: ShadowKind = ShadowKind.FILE, *, same: bool = False, own: bool = True) -> Shadow:
    return Shadow(path, kind, kind is ShadowKind.DIRECTORY, 1, 2, same, "delta" if own else "app", own)


def owned(package: str, *shadows: Shadow) -> list[OwnedShadow]:
    return [OwnedShadow(each, package, "1") for each in shadows]


def test_all_files_of_the_package_go_and_no_others() -> None:
    mine = owned("nginx", shadow("/usr/sbin/nginx"), shadow("/usr/share/nginx/x", ShadowKind.REMOVED))
    others = owned("nginx-common", shadow("/lib/systemd/system/nginx.service"))
    found = whole(["nginx"], [*mine, *others], [each.shadow for each in [*mine, *others]], [])
    assert found.removed == ("/usr/sbin/nginx", "/usr/share/nginx/x")
    assert (found.kept, found.records) == ({}, ())


def test_settings_and_directories_stay_and_are_told() -> None:
    mine = owned(
        "nginx", shadow("/etc/nginx/nginx.conf"), shadow("/etc/nginx/mime.types", same=True),
        shadow("/etc/nginx/gone", ShadowKind.REMOVED), shadow("/usr/share/nginx", ShadowKind.DIRECTORY),
    )  # fmt: skip
    found = whole(["nginx"], mine, [], [])
    assert found.removed == ("/etc/nginx/mime.types",)
    assert set(found.kept) == {"/etc/nginx/nginx.conf", "/etc/nginx/gone", "/usr/share/nginx"}


def test_a_shadow_in_a_shared_layer_stays() -> None:
    assert whole(["nginx"], owned("nginx", shadow("/usr/sbin/nginx", own=False)), [], []).removed == ()


def test_dpkgs_own_files_about_the_package_go_with_it() -> None:
    names = ["python3.list", "python3.md5sums", "python3:amd64.list", "python3.11.list", "python3-apt.list", "format"]
    found = whole(["python3"], [], [shadow(f"{INFO}/{name}") for name in names], [])
    assert found.removed == tuple(sorted(f"{INFO}/{name}" for name in names[:3]))
    odd = shadow(f"{INFO}/python3.list", ShadowKind.DIRECTORY)
    elsewhere = [shadow(f"{INFO}/x/python3.list"), shadow("/home/python3.list"), odd]
    assert whole(["python3"], [], elsewhere, []).removed == ()
    assert whole(["python3:i386"], [], [shadow(f"{INFO}/python3:amd64.list")], []).removed == ()


def test_the_record_of_another_version_is_given_back() -> None:
    assert whole(["libssl3"], [], [], ["libssl3:amd64", "libssl3:i386", "openssl:amd64"]).records == (
        "libssl3:amd64", "libssl3:i386",
    )  # fmt: skip


def test_names_with_and_without_an_architecture() -> None:
    assert is_meant(["libssl3"], "libssl3:amd64")
    assert is_meant(["libssl3:amd64"], "libssl3:amd64")
    assert is_meant(["libssl3:amd64"], "libssl3"), "dpkg names no architecture where there is only one"
    assert not is_meant(["libssl3:i386"], "libssl3:amd64")
    assert not is_meant(["libssl"], "libssl3:amd64")


def test_only_the_given_records_are_replaced() -> None:
    own = b"Package: a\nArchitecture: all\nVersion: 2\n\nPackage: b\nArchitecture: all\nVersion: 2\n\n"
    host = b"Package: a\nArchitecture: all\nVersion: 1\nStatus: install ok installed\n\nPackage: c\nArchitecture: all\n\n"
    given = records.records_of(host, ["a:all", "c:all"])
    assert set(given) == {"a:all", "c:all"}
    changed = records.with_records(own, given)
    assert changed == (
        b"Package: a\nArchitecture: all\nVersion: 1\nStatus: install ok installed\n\n"
        b"Package: b\nArchitecture: all\nVersion: 2\n\n"
    )
