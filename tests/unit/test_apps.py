"""Releases of apps: how they are named, sealed from directories and hostile archives, and seen to be altered."""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import stat
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from lxcfleet.containers.apps import AppsThere
from lxcfleet.containers.desired import Lack
from lxcfleet.daemon.uses.brought import brought as brought_by
from lxcfleet.data.apps import elf, libraries, manifest, merged, sealing, store
from lxcfleet.data.apps.manifest import ReleaseEntry
from lxcfleet.errors import AlreadyExists, Broken, FleetError, HostError, InvalidInput
from lxcfleet.host.kernel import packing, tree
from lxcfleet.host.packages import database
from lxcfleet.host.packages.database import OwningPackage
from lxcfleet.patch.stale.judge import StaleScan
from lxcfleet.patch.stale.served import ComparedFiles
from lxcfleet.patch.verify import evidence
from lxcfleet.patch.verify.apps import Brought
from lxcfleet.patch.verify.evidence import Evidence
from lxcfleet.paths import Paths
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.apps import AppForm, AppType, AppUse, Release, check_covers, parse_app, parse_release
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.volumes import MountKind, VolumesType, parse_mount
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.terms import Init


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A fleet whose releases can't be mounted, and whose process has no bounds of its own."""
    monkeypatch.setattr(store, "show_tree", lambda tree, *_: os.open(tree, os.O_PATH))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    store._looked_at.clear()
    return Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")


def seal(paths: Paths, source: Path, version: str = "1", strip: int = 0) -> Release:
    return sealing.seal(paths, Release("shop", version, source=str(source), created=f"2026-01-0{version[0]}"), source, strip)


def archive(path: Path, *members: tuple[str, bytes | str | Callable[[tarfile.TarInfo], None]], mode: str = "w") -> Path:
    """An archive: bytes make a file, a text a link, a function anything else."""
    with tarfile.open(path, mode) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o6777
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
                continue
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
            else:
                what(info)
            tar.addfile(info)
    return path


def nothing_left(paths: Paths) -> bool:
    return not paths.apps.exists() or not list(paths.apps.iterdir())


def test_a_release_whose_name_can_not_be_forced_to_the_disk_leaves_nothing(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it was told as an error, and the release was there: another one could not have its version."""

    def sync(_: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr(tree, "sync_directory", sync)
        with pytest.raises(OSError, match="Input/output"):
            seal(paths, tmp_path / "source")
    assert nothing_left(paths)
    seal(paths, tmp_path / "source")


# -- names ----------------------------------------------------------------------------------------------------


def test_a_release_is_named_and_placed() -> None:
    assert parse_release("shop@1.4~rc1") == ("shop", "1.4~rc1")
    assert parse_app("shop@1.4") == AppUse("shop", "1.4", "/opt/shop")
    assert str(parse_app("shop@1.4:/opt/shop")) == "shop@1.4"
    assert str(parse_app("shop@1.4:/srv/shop")) == "shop@1.4:/srv/shop"
    for wrong in ("shop", "Shop@1", "shop@", "shop@../x", "shop@1:/usr", "shop@1:/run/x", "shop@1:x", "shop@1:/var/tmp/x"):
        with pytest.raises(InvalidInput):
            parse_app(wrong)


def test_a_spec_has_an_app_as_a_text_or_as_a_mapping() -> None:
    complaints: list[str] = []
    for value in ("shop@1.4:/srv/shop", {"release": "shop@1.4", "target": "/srv/shop"}):
        read = AppType().read(Fields({"app": value}, "", complaints), "app")
        assert (read, complaints) == (AppUse("shop", "1.4", "/srv/shop"), [])
    assert AppType().read(Fields({"app": "shop"}, "", complaints), "app") is None
    assert complaints == ["app: 'shop' names no release of an app: write it as NAME@VERSION, or NAME@VERSION:/PATH"]


def test_an_app_is_mounted_read_only_and_is_no_volume() -> None:
    spec = Spec("web", app=parse_app("shop@1.4"))
    (mount,) = spec.mounted
    assert parse_mount(str(mount)) == mount
    assert (mount.source, mount.read_only, mount.suid, mount.dev) == (MountKind.APP, True, False, False)
    with pytest.raises(InvalidInput):
        VolumesType().parse("shop@1.4:/opt/shop")
    with pytest.raises(InvalidInput):
        parse_mount("shop@1.4:/opt/shop:rw")
    twice = Spec("web", init=Init.APP, command=("x",), app=parse_app("shop@1.4"), volumes=(parse_mount("data:/opt/shop"),))
    with pytest.raises(InvalidInput, match="given twice"):
        combinations.check(twice)


# -- sealing a directory --------------------------------------------------------------------------------------


def test_a_directory_is_sealed_and_nobody_may_write_to_it(paths: Paths, tmp_path: Path) -> None:
    source = tmp_path / "build"
    (source / "bin").mkdir(parents=True)
    (source / "bin/serve").write_text("#!/bin/sh\n")
    (source / "bin/serve").chmod(0o6775)
    (source / "current").symlink_to("bin/serve")
    (source / "python3").symlink_to("/usr/bin/python3")
    os.utime(source / "bin/serve", (1000, 1000))
    release = seal(paths, source)
    own = paths.release("shop", "1")
    assert (release.files, release.size) == (4, 10)
    assert stat.S_IMODE((own.tree / "bin/serve").stat().st_mode) == 0o555
    assert stat.S_IMODE((own.tree / "bin").stat().st_mode) == 0o555
    assert (own.tree / "bin/serve").stat().st_mtime == 1000
    assert os.readlink(own.tree / "current") == "bin/serve"
    assert [stat.S_IMODE(each.stat().st_mode) for each in (own.directory, paths.app("shop"), paths.apps)] == [0o700] * 3
    assert store.check(paths, "shop", "1") == release
    assert (store.names(paths), store.versions(paths, "shop")) == (["shop"], ["1"])
    with pytest.raises(AlreadyExists):
        seal(paths, source)


@pytest.mark.parametrize("make", [
    lambda top: (top / "a").symlink_to("../../etc/shadow"),
    lambda top: (top / "a").symlink_to("/etc/shadow"),
    lambda top: (top / "a").symlink_to("/usr/../etc/shadow"),
    lambda top: os.mkfifo(top / "a"),
    lambda top: os.makedirs(top / "/".join("d" * 70)),
])  # fmt: skip
def test_what_can_not_be_in_a_release_is_refused(paths: Paths, tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "build").mkdir()
    make(tmp_path / "build")
    with pytest.raises(InvalidInput):
        seal(paths, tmp_path / "build")
    assert nothing_left(paths)


def test_a_full_disk_and_a_release_beside_lxcfleets_own_files_are_refused(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build/a").write_bytes(b"x" * 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000 + 4999, "total": 20000})())
    with pytest.raises(HostError, match="no room"):
        seal(paths, tmp_path / "build")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000 + 9999, "total": 20000})())
    with pytest.raises(HostError, match="no room"):  # for its files and their image
        sealing.seal(paths, Release("shop", "1", form=AppForm.LAYER), tmp_path / "build")
    assert nothing_left(paths)
    monkeypatch.undo()
    with pytest.raises(InvalidInput, match="own files"):
        seal(paths, tmp_path)


# -- archives -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_is_unpacked(paths: Paths, tmp_path: Path, mode: str) -> None:
    def hard(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = tarfile.LNKTYPE, "shop-1/bin/a"

    tar = archive(tmp_path / "a.tar", ("shop-1/bin/a", b"abc"), ("shop-1/bin/b", hard), ("shop-1/c", "bin/a"), mode=mode)
    release = seal(paths, tar, strip=1)
    own = paths.release("shop", "1").tree
    assert ((own / "bin/a").read_bytes(), (own / "c").read_bytes()) == (b"abc", b"abc")
    assert os.path.samefile(own / "bin/a", own / "bin/b")
    assert (release.files, release.size) == (4, 3)


def kind(code: bytes, link: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        info.type, info.linkname = code, link

    return change


@pytest.mark.parametrize("members", [
    [("../a", b"x")],
    [("/etc/a", b"x")],
    [("a/../../b", b"x")],
    [("a", "../b")],
    [("a", "/etc/passwd")],
    [("a", "/proc/self/root")],
    [("a", "b"), ("a/c", b"x")],
    [("a", "/usr"), ("a/bin/c", b"x")],
    [("a", b"x"), ("a", b"y")],
    [("a", b"x"), ("a/b", b"y")],
    [("a", kind(tarfile.LNKTYPE, "/etc/passwd"))],
    [("a", kind(tarfile.LNKTYPE, "../../etc/passwd"))],
    [("a", kind(tarfile.LNKTYPE, "missing"))],
    [("b", "/usr/bin/env"), ("a", kind(tarfile.LNKTYPE, "b"))],
    [("a", kind(tarfile.BLKTYPE))],
    [("a", kind(tarfile.CHRTYPE))],
    [("a", kind(tarfile.FIFOTYPE))],
    [("n" * 256, b"x")],
    [("/".join("d" * 70), b"x")],
])  # fmt: skip
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    paths: Paths, tmp_path: Path, members: list[tuple[str, bytes]]
) -> None:
    with pytest.raises(InvalidInput):
        seal(paths, archive(tmp_path / "a.tar", ("good", b"x"), *members))
    assert nothing_left(paths)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_an_archive_that_is_cut_off_anywhere_is_refused(paths: Paths, tmp_path: Path, mode: str) -> None:
    whole = archive(tmp_path / "a.tar", ("a", b"x" * 700), ("b", os.urandom(3000)), mode=mode).read_bytes()
    cuts = range(0, 5120, 512) if mode == "w" else [*range(0, len(whole), 97), len(whole) - 1]
    for cut in cuts:
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(FleetError):
            seal(paths, tmp_path / "cut.tar")
        assert nothing_left(paths)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_an_archive_with_an_altered_byte_is_refused(paths: Paths, tmp_path: Path, mode: str) -> None:
    """Random bytes are stored as they are: there only the check sum shows it."""
    whole = archive(tmp_path / "a.tar", ("a", b"x" * 700), ("b", os.urandom(3000)), mode=mode).read_bytes()
    for place in [*range(64, len(whole), 211), len(whole) - 3]:  # neither gzip's head nor the last bits are checked
        altered = bytearray(whole)
        altered[place] ^= 4
        (tmp_path / "altered.tar").write_bytes(altered)
        with pytest.raises(FleetError):
            seal(paths, tmp_path / "altered.tar")
        assert nothing_left(paths)


def test_bombs_are_stopped_before_they_fill_the_disk(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = archive(tmp_path / "a.tar.xz", ("a", bytes(3 << 20)), mode="w:xz")
    monkeypatch.setattr(sealing, "MOST_BYTES", 2 << 20)
    with pytest.raises(InvalidInput, match="too much"):
        seal(paths, tar)
    monkeypatch.setattr(sealing, "MAX_FILES", 10)
    with pytest.raises(InvalidInput, match="more than 10 files"):
        seal(paths, archive(tmp_path / "b.tar", *((str(number), b"") for number in range(20))))
    assert nothing_left(paths)


def test_a_file_that_is_all_holes_takes_no_room_on_the_disk(paths: Paths, tmp_path: Path) -> None:
    """A clone makes one of any size for nothing, and sealing it must not fill the host's disk with zeros."""
    source = tmp_path / "source"
    source.mkdir()
    with (source / "big").open("wb") as file:
        file.write(b"begin")
        file.truncate(48 << 20)
        file.seek(20 << 20)
        file.write(b"middle")
    seal(paths, source)
    made = paths.release("shop", "1").tree / "big"
    assert made.read_bytes() == (source / "big").read_bytes()
    assert made.stat().st_blocks * 512 <= 4 << 20


def test_a_file_that_is_no_archive_is_refused(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(os.urandom(2048))
    with pytest.raises(InvalidInput, match="can't be read"):
        seal(paths, tmp_path / "a.tar")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidInput, match="neither a directory nor an archive"):
        seal(paths, tmp_path / "pipe")


def test_names_of_any_bytes_are_kept(paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "build" / name).write_text("x")
    release = seal(paths, tmp_path / "build")
    assert store.examine(paths, "shop", "1", contents=True) == release
    assert (paths.release("shop", "1").tree / name).read_text() == "x"


# -- what was altered -----------------------------------------------------------------------------------------


# -- layers ---------------------------------------------------------------------------------------------------


def entry(path: str, kind: str = "f") -> ReleaseEntry:
    return ReleaseEntry(path, kind, 0o555, 1, "")


@pytest.mark.parametrize(("path", "kind", "told"), [
    ("var/lib/x", "f", "a layer has directories /etc, /opt, /srv, /usr"),
    ("bin", "d", "a layer has directories"),
    ("usr", "l", "a layer has directories"),
    ("etc/passwd", "f", "lxcfleet gives each container a file of its own there"),
    ("etc/neutral", "f", "lxcfleet gives each container a file of its own there"),
    ("usr/.wh.bin", "f", "it would remove a file"),
    ("usr/lib64", "d", "the host has a link there, and the layer would hide all of it"),
    ("usr/bin", "f", "the host has a directory there"),
    ("usr/bin/vi", "d", "the host has a file there"),
])  # fmt: skip
def test_what_can_not_be_in_a_layer_is_refused(tmp_path: Path, path: str, kind: str, told: str) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/vi").touch()
    (tmp_path / "usr/lib64").symlink_to("lib")
    with pytest.raises(InvalidInput) as caught:
        merged.check([entry(".", "d"), entry(path, kind)], ["/usr/bin/vi"], {"/etc/neutral"}, tmp_path)
    assert told in caught.value.why


def test_a_layer_hides_only_what_it_may_cover(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "owners", lambda paths: {"/usr/bin/vi": OwningPackage("vim", "9")})
    (tmp_path / "usr/bin").mkdir(parents=True)
    for name in ("vi", "own"):
        (tmp_path / "usr/bin" / name).touch()
    entries = [entry("usr", "d"), entry("usr/bin", "d"), *(entry(f"usr/bin/{name}") for name in ("vi", "own", "new"))]
    with pytest.raises(InvalidInput) as caught:
        merged.check(entries, [], root=tmp_path)
    assert caught.value.why == "/usr/bin/vi of vim, /usr/bin/own"
    with pytest.raises(InvalidInput, match="would hide"):
        merged.check(entries, ["/usr/bin/v"], root=tmp_path)
    merged.check(entries, ["/usr/bin/vi", "/usr/bin/own"], root=tmp_path)
    for path in ("/usr/bin", "/etc", "/", "etc/x", "/usr/../x"):
        with pytest.raises(InvalidInput):
            check_covers(path)
    assert check_covers("/etc/x") == "/etc/x"


def test_the_image_of_a_layer_has_directories_as_the_host_has_them(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {}

    def pack(stage: Path, image: Path) -> str:
        seen.update({str(each.relative_to(stage)): stat.S_IMODE(each.lstat().st_mode) for each in stage.rglob("*")})
        image.write_text("image")
        return "no erofs here"

    monkeypatch.setattr(packing, "pack", pack)
    (tmp_path / "x/usr/local/lxcfleet-test").mkdir(parents=True)
    (tmp_path / "x/usr/local/lxcfleet-test/serve").write_text("one")
    release = Release("shop", "1", form=AppForm.LAYER)
    made = sealing.seal(paths, release, tmp_path / "x")
    own = paths.release("shop", "1")
    host = {path: stat.S_IMODE(os.stat(f"/{path}").st_mode) for path in ("usr", "usr/local")}
    assert seen == {**host, "usr/local/lxcfleet-test": 0o555, "usr/local/lxcfleet-test/serve": 0o444}
    assert (made.no_erofs, own.image.read_text(), (own.directory / "stage").exists()) == ("no erofs here", "image", False)
    assert store.examine(paths, "shop", "1") == made
    own.image.write_text("other")
    store._looked_at.clear()
    with pytest.raises(Broken) as caught:
        store.examine(paths, "shop", "1")
    assert "image has other contents" in caught.value.why
    own.image.unlink()
    with pytest.raises(Broken, match="altered"):
        store.examine(paths, "shop", "1")


def test_a_release_that_removes_files_is_refused(paths: Paths, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root may make whiteouts and opaque directories")
    (tmp_path / "x/usr").mkdir(parents=True)
    os.setxattr(tmp_path / "x/usr", "trusted.overlay.opaque", b"y")
    with pytest.raises(InvalidInput) as caught:
        seal(paths, tmp_path / "x")
    assert "marked to hide" in caught.value.why
    os.removexattr(tmp_path / "x/usr", "trusted.overlay.opaque")
    os.mknod(tmp_path / "x/usr/gone", 0o020000, 0)
    with pytest.raises(InvalidInput) as caught:
        seal(paths, tmp_path / "x")
    assert "a whiteout" in caught.value.why
    assert nothing_left(paths)
    with tarfile.open(tmp_path / "t", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("usr")
        info.type, info.pax_headers = tarfile.DIRTYPE, {"SCHILY.xattr.trusted.overlay.opaque": "y"}
        tar.addfile(info)
    with pytest.raises(InvalidInput, match="can't be in a release"):
        seal(paths, tmp_path / "t")


def test_what_a_clone_left_becomes_a_layer(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "pack", lambda stage, image: image.write_text("image") and "")
    monkeypatch.setattr(libraries, "packages_of", lambda *_: {"libc6": "2"})
    (tmp_path / "delta/usr/local/lxcfleet-test").mkdir(parents=True)
    (tmp_path / "delta/usr/local/lxcfleet-test/x").write_text("x")
    (tmp_path / "delta/etc").mkdir()
    (tmp_path / "delta/etc/hostname").write_text("x")
    release = Release("shop", "1", form=AppForm.LAYER)
    made = sealing.seal(paths, release, tmp_path / "delta", inside="/")
    tree = paths.release("shop", "1").tree
    assert (sorted(os.listdir(tree)), made.packages) == (["usr"], {"libc6": "2"})
    assert os.listdir(tree / "usr/local/lxcfleet-test") == ["x"]
    with pytest.raises(InvalidInput, match="left nothing"):
        sealing.seal(paths, replace(release, version="2"), tmp_path / "delta", inside="/srv/x")


@pytest.fixture
def sealed(paths: Paths, tmp_path: Path) -> Path:
    """The directory of the files of shop@1."""
    (tmp_path / "build/bin").mkdir(parents=True)
    (tmp_path / "build/bin/serve").write_text("one")
    (tmp_path / "build/link").symlink_to("bin")
    seal(paths, tmp_path / "build")
    return paths.release("shop", "1").tree


def rewrite(tree: Path) -> None:
    file = tree / "bin/serve"
    before = file.stat()
    file.chmod(0o644)
    file.write_text("two")
    file.chmod(stat.S_IMODE(before.st_mode))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def add(tree: Path) -> None:
    (tree / "bin").chmod(0o755)
    (tree / "bin/more").write_text("x")
    (tree / "bin").chmod(0o555)


def lead(tree: Path) -> None:
    tree.chmod(0o755)
    (tree / "link").unlink()
    (tree / "link").symlink_to("/usr")
    tree.chmod(0o555)


def lose(tree: Path) -> None:
    tree.rename(tree.with_name("elsewhere"))


@pytest.mark.parametrize(("alter", "told"), [
    (rewrite, "bin/serve has other contents"),
    (add, "bin/more was added"),
    (lead, "link leads elsewhere"),
    (lambda tree: (tree / "bin/serve").chmod(0o755), "bin/serve has the mode 0755 instead of"),
    (lose, "is gone"),
    (lambda tree: tree.with_name("files").write_text(""), "files or"),
])  # fmt: skip
def test_a_release_that_was_altered_is_named_with_its_file(
    paths: Paths, sealed: Path, alter: Callable[[Path], object], told: str
) -> None:
    store.examine(paths, "shop", "1")
    alter(sealed)
    store._looked_at.clear()
    for contents in (False, True):
        if told == "files or" and not contents:
            continue  # nothing that is mounted differs
        with pytest.raises(Broken, match="shop@1 was altered") as raised:
            store.examine(paths, "shop", "1", contents=contents)
        assert told in raised.value.why


def test_a_release_that_was_restored_from_a_backup_is_read_once(
    paths: Paths, sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(sealed / "bin/serve")
    store._looked_at.clear()
    store.examine(paths, "shop", "1")
    read = MagicMock(side_effect=AssertionError)
    monkeypatch.setattr(manifest, "entries", read)
    store._looked_at.clear()
    assert store.examine(paths, "shop", "1").version == "1"
    assert not read.called


def test_a_record_that_was_cut_off_is_told(paths: Paths, sealed: Path) -> None:
    own = paths.release("shop", "1")
    own.record.write_text("format: 1\n")
    found = store.load(paths, "shop", "1")
    assert isinstance(found, Broken)
    assert "digest: is missing" in found.why
    assert store.versions(paths, "shop") == ["1"]
    with pytest.raises(InvalidInput, match="there is no app shop@2") as raised:
        store.check(paths, "shop", "2")
    assert raised.value.why == "shop has 1"


# -- removing -------------------------------------------------------------------------------------------------


def test_a_release_is_removed_in_two_steps(paths: Paths, sealed: Path, tmp_path: Path) -> None:
    seal(paths, tmp_path / "build", "2")
    store.retire(paths, "shop", "1")
    assert store.versions(paths, "shop") == ["2"]
    (left,) = store.leftovers(paths)
    assert left == f"shop/{Paths.GONE_PREFIX}1.0"
    store.remove(paths, left)
    assert (store.leftovers(paths), store.versions(paths, "shop")) == ([], ["2"])
    for wrong in ("shop/2", "../x", f"shop/{Paths.GONE_PREFIX}/../2"):
        with pytest.raises(InvalidInput):
            store.remove(paths, wrong)
    store.retire(paths, "shop", "2")
    store.remove(paths, *store.leftovers(paths))
    assert nothing_left(paths)


def test_what_a_kill_left_is_no_release(paths: Paths, sealed: Path, tmp_path: Path) -> None:
    half = paths.new_release("shop", "2")
    half.tree.mkdir(parents=True)
    (half.tree / "a").write_text("x")
    assert (store.versions(paths, "shop"), store.leftovers(paths)) == (["1"], [f"shop/{half.directory.name}"])
    release = seal(paths, tmp_path / "build", "2")
    assert store.examine(paths, "shop", "2", contents=True) == release


def test_a_container_waits_for_a_release_that_is_missing(paths: Paths, sealed: Path) -> None:
    there = AppsThere(paths)
    spec = Spec("web", app=parse_app("shop@1"))
    assert there.lack(spec) is None
    assert there.lack(replace(spec, app=parse_app("shop@2"))) == Lack("app shop@2 is not on this host")


# -- what patches of the host do not reach ----------------------------------------------------------------------


def test_copies_of_the_hosts_libraries_are_told(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = tmp_path / "usr/lib"
    (host / "x86_64-linux-gnu").mkdir(parents=True)
    (host / "x86_64-linux-gnu/libssl.so.3").touch()
    monkeypatch.setattr(libraries, "DIRECTORIES", (host,))
    (tmp_path / "build/lib").mkdir(parents=True)
    (tmp_path / "build/lib/libssl.so.3").touch()
    (tmp_path / "build/lib/libown.so.1").touch()
    sealing.seal(paths, Release("shop", "1", packages={"libc6": "1", "zlib1g": "2", "gone": "3"}), tmp_path / "build")
    uses = {"web": parse_app("shop@1"), "b": parse_app("shop@2")}
    found = brought_by(paths, uses, {"libc6": "1", "zlib1g": "2.1"})
    brought = found["web"]
    assert (brought.copies, brought.libraries) == (("lib/libssl.so.3",), (str(host / "x86_64-linux-gnu/libssl.so.3"),))
    assert brought.words == [
        "its app shop@1 brings lib/libssl.so.3 of its own, which patches of the host do not reach: rebuild shop",
        "its app shop@1 was built against zlib1g 2 (now 2.1), gone 3 (now not installed): rebuild shop",
    ]
    assert found["b"].words == ["what its app shop@2 brings along is not known: there is no app shop@2"]


def test_an_app_with_a_copy_of_a_library_proves_nothing_of_its_package() -> None:
    app = Brought("shop@1", ("lib/libssl.so.3",), ("/usr/lib/libssl.so.3",), ("libssl3",))
    seen = Evidence(StaleScan("web", 2, 8), (), app=app)
    assert evidence.judge(seen, "", {}, ()).proven
    assert evidence.note(seen) == app.words[0]
    assert evidence.judge(seen, "", {}, ("zlib1g",)).proven
    assert evidence.judge(seen, "", {}, ("libssl3",)).reasons == (app.words[0],)
    unknown = replace(seen, app=Brought("shop@1", problem="it is gone"))
    assert not evidence.judge(unknown, "", {}, ("zlib1g",)).proven
    assert "files of its app shop@1, which are none of the host's" in evidence.not_compared(seen, ComparedFiles())


# -- what a clone built -----------------------------------------------------------------------------------------


def test_a_release_is_what_a_clone_left_at_one_path(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "packages_of", lambda *_: {"libc6": "2.36"})
    delta = tmp_path / "delta"
    (delta / "opt/shop/bin").mkdir(parents=True)
    (delta / "opt/shop/bin/serve").write_text("x")
    (delta / "etc").mkdir()
    release = sealing.seal(paths, Release("shop", "1"), delta, inside="/opt/shop")
    assert (release.packages, release.files) == ({"libc6": "2.36"}, 2)
    assert store.check(paths, "shop", "1") == release
    assert os.listdir(paths.release("shop", "1").tree) == ["bin"]


@pytest.mark.parametrize("make", [
    lambda delta: None,
    lambda delta: (delta / "opt").mkdir(),
    lambda delta: (delta / "opt/shop").mkdir(parents=True),
    lambda delta: ((delta / "opt").mkdir(), (delta / "opt/shop").symlink_to("/etc")),
    lambda delta: (delta / "opt").symlink_to("/usr"),
    lambda delta: ((delta / "opt").mkdir(), (delta / "opt/shop").write_text("x")),
])  # fmt: skip
def test_a_clone_that_left_nothing_or_a_trap_gives_no_release(
    paths: Paths, tmp_path: Path, make: Callable[[Path], object]
) -> None:
    (tmp_path / "delta").mkdir()
    make(tmp_path / "delta")
    with pytest.raises(InvalidInput, match="left nothing"):
        sealing.seal(paths, Release("shop", "1"), tmp_path / "delta", inside="/opt/shop")
    assert nothing_left(paths)


def test_elf_files_tell_the_libraries_that_they_need(tmp_path: Path) -> None:
    with open("/usr/bin/ls", "rb") as file:
        whole = file.read()
        if whole[4:6] == b"\x02\x01":
            assert any(name.startswith("libc.so") for name in elf.needed(file.fileno()))
    for cut in (0, 3, 17, 64, 200, 1000, len(whole) // 2):
        (tmp_path / "cut").write_bytes(whole[:cut])
        with (tmp_path / "cut").open("rb") as file:
            elf.needed(file.fileno())
    (tmp_path / "odd").write_bytes(whole[:32] + b"\xff" * 64 + whole[96:])
    with (tmp_path / "odd").open("rb") as file:
        assert elf.needed(file.fileno()) == ()
