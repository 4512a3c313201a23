"""Sheets of generations as the lower layers of a real overlay, in a mount namespace that ends with the test. Needs root."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from lxcfleet.base.generations import build, store
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.base.generations.verify import verify
from lxcfleet.base.mount_plan import OPTIONS
from lxcfleet.errors import FleetError, Unsupported
from lxcfleet.host.kernel import syscalls
from lxcfleet.paths import Paths

from .test_mask import FIRST_ID, apart

pytestmark = pytest.mark.system

NOW = 1_800_000_000.0
Shot = dict[str, tuple[object, ...]]


def replace(file: Path, text: str) -> None:
    """As dpkg does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f"{file.name}.dpkg-new")
    new.write_text(text)
    os.rename(new, file)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A much reduced host, with what is worth a look: a capability, a link, names that are no UTF-8, owners."""
    root = tmp_path / "host"
    odd = "usr/lib/odd \udcff:,\n"
    for name in ("usr/bin/a", "usr/lib/dir/x", "usr/lib/dir/y", odd, "etc/conf", "opt/app/run", "usr/lib/old"):
        replace(root / name, ascii(name))
    names = ("usr/bin/a", "usr/lib/dir/x", "usr/lib/dir/y", "usr/lib/old")
    replace(root / "var/lib/dpkg/info/a.list", "".join(f"/{name}\n" for name in names))
    os.chown(root / "etc/conf", 33, 44)
    (root / "usr/bin/link").symlink_to("a")
    os.setxattr(root / "usr/bin/a", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    (root / "opt/app").chmod(0o1777)
    os.chown(root / "opt/app", 33, 44)
    return root


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "lxc", tmp_path / "run", tmp_path / "etc")


def shot(outside: str, names: list[str], shift: int, *, capabilities: bool) -> tuple[object, ...]:
    status = os.lstat(outside)
    known = sorted(os.listxattr(outside, follow_symlinks=False))
    attributes = [
        (name, os.getxattr(outside, name, follow_symlinks=False))
        for name in known
        if not name.startswith("trusted.overlay.") and (capabilities or name != "security.capability")
    ]
    found = (status.st_mode, status.st_uid - shift, status.st_gid - shift, status.st_mtime_ns, *attributes)
    if stat.S_ISDIR(status.st_mode):
        return (*found, *names)
    return (*found, os.readlink(outside) if stat.S_ISLNK(status.st_mode) else Path(outside).read_bytes())


def frozen(view: Sheets, path: str = "/", *, capabilities: bool) -> Shot:
    """What the generation is, as this product sees it."""
    outside = view.outside(path)
    names = view.names(path) if stat.S_ISDIR(os.lstat(outside).st_mode) else []
    found = {path: shot(outside, names, 0, capabilities=capabilities) if path != "/" else tuple(names)}
    for name in names:
        found |= frozen(view, f"{path.rstrip('/')}/{name}", capabilities=capabilities)
    return found


def shown(root: Path, first_id: int | None, path: str = "/") -> Shot:
    """What the kernel shows. Through shifted owners it shows capabilities only to those who are root there."""
    outside = f"{root}{path}"
    names = sorted(os.listdir(outside)) if stat.S_ISDIR(os.lstat(outside).st_mode) else []
    # The topmost directory is the container's own.
    found = {path: shot(outside, names, first_id or 0, capabilities=first_id is None) if path != "/" else tuple(names)}
    for name in names:
        found |= shown(root, first_id, f"{path.rstrip('/')}/{name}")
    return found


def mounted(paths: Paths, sheets: list[Path], first_id: int | None) -> Path:
    """An overlay over the sheets, as containers get it."""
    top = paths.run / "mounts"
    shutil.rmtree(top, ignore_errors=True)
    places = [top / f"sheet{number}" for number in range(len(sheets))]
    for directory in (*places, top / "root", top / "up", top / "work"):
        directory.mkdir(parents=True)
    for name in ("up", "work"):
        os.chown(top / name, first_id or 0, first_id or 0)
    users = None if first_id is None else syscalls.user_namespace(first_id, 65536)
    for sheet, place in zip(sheets, places, strict=True):
        # open_tree(2) shows a directory, whether or not something is mounted there.
        syscalls.clone_read_only(sheet, place, users)
    lower = ":".join(map(str, places))
    options = f"lowerdir={lower},upperdir={top}/up,workdir={top}/work,{OPTIONS}"
    syscalls.mount("sheets", top / "root", "overlay", syscalls.MS_NODEV, options)
    return top / "root"


def unmounted(paths: Paths, count: int) -> None:
    top = paths.run / "mounts"
    for name in ("root", *(f"sheet{number}" for number in range(count))):
        syscalls.unmount(top / name)


@pytest.mark.parametrize("first_id", [None, FIRST_ID])
def test_an_overlay_of_a_generation_shows_what_was_frozen_and_goes_on_showing_it(
    paths: Paths, host: Path, first_id: int | None
) -> None:
    assert build.freeze(paths, "", root=host, now=NOW) is not None
    replace(host / "usr/bin/a", "patched once")
    shutil.rmtree(host / "usr/lib/dir")
    replace(host / "usr/lib/dir", "now a file")
    (host / "usr/lib/old").unlink()
    replace(host / "usr/lib/old/new", "now a directory")
    (host / "opt/app").chmod(0o755)
    assert build.freeze(paths, "", root=host, now=NOW) is not None
    (host / "usr/lib/dir").unlink()
    replace(host / "usr/lib/dir/z", "a directory again")
    (host / "usr/bin/link").unlink()
    assert build.freeze(paths, "", root=host, now=NOW) is not None

    def look() -> tuple[list[Shot], list[Shot], Shot, Shot]:
        expected, found = [], []
        for number in (1, 2, 3):
            generation = store.load(paths, number)
            sheets = [store.sheet(paths, name) for name in generation.sheets]
            expected.append(frozen(store.view(paths, generation), capabilities=first_id is None))
            root = mounted(paths, sheets, first_id)
            found.append(shown(root, first_id))
            unmounted(paths, len(sheets))
        # The third one stays mounted. Half of it is looked up before the host changes.
        root = mounted(paths, sheets, first_id)
        assert (root / "usr/bin/a").read_text() == "patched once"
        for name in ("usr/bin/a", "usr/lib/dir/z", "usr/lib/old/new", "opt/app/run", "etc/conf"):
            replace(host / name, "the next patch")
        (host / "usr/lib/odd \udcff:,\n").unlink()
        shutil.rmtree(host / "usr/lib/dir")
        replace(host / "usr/lib/more", "")
        (host / "etc/conf").write_text("in place")
        after = shown(root, first_id)
        unmounted(paths, len(sheets))
        root = mounted(paths, sheets, first_id)
        return expected, found, after, shown(root, first_id)

    expected, found, after, anew = apart(look)
    assert found == expected
    assert after == anew == expected[2]
    assert expected[0]["/usr/lib/dir"] != expected[1]["/usr/lib/dir"] != expected[2]["/usr/lib/dir"]
    assert "/usr/lib/dir/x" not in expected[2]
    assert "/usr/bin/link" not in expected[2]
    for number in (1, 2, 3):
        assert verify(paths, number).good
    for number in (2, 1, 3):
        store.remove(paths, number)
    assert (host / "usr/bin/a").read_text() == "the next patch"
    assert (host / "usr/bin/a").stat().st_nlink == 1


@pytest.mark.parametrize("first_id", [None, FIRST_ID])
def test_a_host_of_several_file_systems_is_one_overlay(
    paths: Paths, host: Path, tmp_path: Path, first_id: int | None
) -> None:
    """/usr is a file system of its own, and /opt a mount of the same one, over which no link leads either."""
    image = tmp_path / "usr.ext4"
    with open(image, "wb") as file:
        file.truncate(8 << 20)

    def look() -> tuple[list[Shot], list[Shot], Shot]:
        source = (host / "usr").rename(tmp_path / "usr")
        (host / "usr").mkdir()
        for command in (
            ["mkfs.ext4", "-q", "-F", str(image)], ["mount", "-o", "loop", str(image), str(host / "usr")],
            ["mount", "--bind", str(host / "opt"), str(host / "opt")], ["cp", "-a", f"{source}/.", str(host / "usr")],
        ):  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (host / "usr/lost+found").rmdir()
        expected, found = [], []
        try:
            for step in range(3):
                made = build.freeze(paths, "", root=host, now=NOW)
                assert made is not None
                assert [name.partition(".")[2] for name in made.levels[-1]] == ["", "opt", "usr"]
                assert os.path.samefile(store.view(paths, made).outside("/usr/bin/a"), host / "usr/bin/a")
                sheets = [store.sheet(paths, name) for name in made.sheets]
                expected.append(frozen(store.view(paths, made), capabilities=first_id is None))
                root = mounted(paths, sheets, first_id)
                found.append(shown(root, first_id))
                assert verify(paths, made.number).good
                if step < 2:
                    unmounted(paths, len(sheets))
                    replace(host / "usr/bin/a", f"patched {step}")
                    replace(host / "opt/app/run", f"patched {step}")
                    (host / ("usr/lib/old", "usr/lib/dir/x")[step]).unlink()
                    (host / "etc/conf").write_text(f"patched {step}")
            # What runs sees nothing of the next patch.
            replace(host / "usr/lib/dir/y", "patched")
            replace(host / "opt/app/run", "patched")
            after = shown(root, first_id)
            unmounted(paths, len(sheets))
            for number in (2, 3, 1):
                store.remove(paths, number)
            assert sorted(os.listdir(host / "usr")) == ["bin", "lib"]
            assert os.listdir(host / "opt") == ["app"]
            subprocess.run(["mount", "-o", "remount,ro", str(host / "usr")], check=True)
            with pytest.raises(Unsupported, match="/usr is a file system of its own, which is mounted read-only"):
                build.freeze(paths, "", root=host, now=NOW)
        finally:
            subprocess.run(["umount", str(host / "usr"), str(host / "opt")], check=True)
        return expected, found, after

    expected, found, after = apart(look)
    assert found == expected
    assert after == expected[2]
    assert "/usr/lib/old" not in expected[1]
    assert "/usr/lib/old" in expected[0]


def fill(place: Path, kind: str) -> list[Path]:
    """Fill a file system with files of its smallest size: all inodes or all blocks of it; returns the files."""
    made: list[Path] = []
    while True:
        file = place / f"{kind}{len(made)}"
        try:
            file.touch()
            made.append(file)
            if kind == "blocks":
                file.write_bytes(b"x")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return made


@pytest.mark.parametrize("kind", ["blocks", "inodes"])
def test_a_file_system_that_is_really_full_leaves_the_generations_as_they_were(
    paths: Paths, host: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It fills up while the base is frozen: at each file that is written there is no more room at least once."""
    image, mounted = tmp_path / "small.ext4", tmp_path / "small"
    mounted.mkdir()
    inodes = "512" if kind == "inodes" else "4096"
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "1024", "-m", "0", "-N", inodes, str(image), "4M"], check=True)

    def look() -> tuple[str, int, int]:
        subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
        subprocess.run(["cp", "-a", str(host), str(mounted / "host")], check=True)
        root, own = mounted / "host", Paths(mounted / "lxc", paths.run, mounted / "etc")
        assert build.freeze(own, "", root=root, now=NOW) is not None
        replace(root / "usr/bin/a", "patched")
        for number in range(5):
            replace(root / f"etc/more{number}/conf", "more")
        known = sorted(os.listdir(own.sheets))
        (mounted / "filled").mkdir()
        filled = fill(mounted / "filled", kind)
        with pytest.raises(FleetError) as refusal:
            build.freeze(own, "", root=root, now=NOW)
        refused, failed, made, told = str(refusal.value), 0, 0, set[bool]()
        monkeypatch.setattr(build, "_check_room", lambda needs: None)
        while not made:
            filled.pop().unlink()
            try:
                made = int(build.freeze(own, "", root=root, now=NOW) is not None)
            except FleetError as error:
                told.add("no room" in str(error) or "No space left" in str(error))
                failed += 1
                assert (store.numbers(own), sorted(os.listdir(own.sheets))) == ([1], known)
            assert verify(own, 1).good
        assert [verify(own, number).good for number in store.numbers(own)] == [True, True]
        for number in store.numbers(own):
            store.remove(own, number)
        assert told == {True}, "each refusal says why"
        return refused, failed, len(os.listdir(own.sheets))

    refused, failed, left = apart(look)
    assert "must stay free" in refused, refused
    assert (failed > 5, left) == (True, 0)


def test_an_immutable_file_is_copied(paths: Paths, host: Path) -> None:
    file = host / "usr/bin/a"
    assert os.spawnvp(os.P_WAIT, "chattr", ["chattr", "+i", str(file)]) == 0
    try:
        made = build.freeze(paths, "", root=host, now=NOW)
        assert made is not None
        inside = store.view(paths, made).outside("/usr/bin/a")
        assert Path(inside).read_bytes() == file.read_bytes()
        assert not os.path.samefile(inside, file)
        assert os.getxattr(inside, "security.capability") == os.getxattr(file, "security.capability")
    finally:
        os.spawnvp(os.P_WAIT, "chattr", ["chattr", "-i", str(file)])
    store.remove(paths, made.number)
