"""Masks as real images, under a real overlay, in a mount namespace that ends with the test. Needs root."""

import errno
import os
import pickle
import shutil
import socket
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest

from lxcfleet.base import layers
from lxcfleet.base.mask import build, mount
from lxcfleet.base.mask.freshness import Freshness
from lxcfleet.base.mask.sweep import sweep
from lxcfleet.base.present import Shelf
from lxcfleet.base.stack import stack_of
from lxcfleet.base.tree import Tree
from lxcfleet.errors import HostError, NoCapacity, Unsupported
from lxcfleet.host.kernel import image, syscalls, watch
from lxcfleet.host.kernel.entries import Copy, Directory, Entry, File, Owner, Symlink, Whiteout
from lxcfleet.host.kernel.watch import Watch
from lxcfleet.host.process import command
from lxcfleet.launcher.children import preparing
from lxcfleet.launcher.items.containers import PrepareItem
from lxcfleet.paths import Paths

from .harness import OTHERS_ETC, until

pytestmark = pytest.mark.system

T = TypeVar("T")
FIRST_ID = 1879048192 + 3900 * 65536
OPTIONS = "index=off,metacopy=off,redirect_dir=off,xino=off"


def apart(work: Callable[[], T]) -> T:
    """Run ``work`` in a child with a mount namespace of its own; returns its result."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            syscalls.unshare_mounts()
            with open(writing, "wb") as pipe:
                pickle.dump(work(), pipe)
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    assert os.waitpid(child, 0)[1] == 0, "the child failed; its traceback is on stderr"
    return pickle.loads(answer)  # type: ignore[no-any-return]


def mount_image(paths: Paths) -> None:
    argv = [
        "/usr/bin/mount",
        "-t",
        "ext4",
        "-o",
        "loop,ro,nodev",
        str(paths.mask_image),
        str(paths.mask_mount),
    ]
    command.run(argv)


def mount_clone(paths: Paths, base: Path, *, shifted: bool = False) -> Path:
    """Mount the root of a clone of ``base``; returns its path."""
    for directory in (
        paths.base_mount,
        paths.mask_mount,
        paths.root_mount,
        paths.run / "up",
        paths.run / "work",
    ):
        directory.mkdir(exist_ok=True)
    mount_image(paths)
    if shifted:
        os.chown(paths.run / "up", FIRST_ID, FIRST_ID)
        namespace = syscalls.user_namespace(FIRST_ID, 65536)
        syscalls.clone_read_only(base, paths.base_mount, namespace)
        syscalls.clone_read_only(paths.mask_mount, paths.mask_mount, namespace)
        os.close(namespace)
    else:
        syscalls.clone_read_only(base, paths.base_mount, None)
    layers = (
        f"lowerdir={paths.mask_mount}:{paths.base_mount},upperdir={paths.run}/up,workdir={paths.run}/work"
    )
    syscalls.mount("mask-test", paths.root_mount, "overlay", syscalls.MS_NODEV, f"{layers},{OPTIONS}")
    return paths.root_mount


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A much reduced host with files to hide."""
    root = tmp_path / "host"
    files = {
        "usr/bin/sh": 0o755, "etc/motd": 0o644, "etc/app/key": 0o600, "etc/ssl/private/key": 0o644,
        "home/alice/diary": 0o644, "data/customers": 0o644, "var/lib/dpkg/status": 0o644,
        "var/lib/nginx/body/secret": 0o644, "var/lib/other/state": 0o644, "var/cache/x/y": 0o644,
        "opt/odd\n\udcff name": 0o600, "opt/plain \udcff": 0o644, "etc/fstab": 0o644, "etc/shadow": 0o640,
        "usr/lib/systemd/system/dbus.socket": 0o644, "usr/lib/systemd/system/evil.service": 0o644,
        "etc/systemd/system/evil.service": 0o644, "srv/www/index.html": 0o644, "srv/ftp/x": 0o644,
    }  # fmt: skip
    for name, mode in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"root:host's {file.name!r}:\n")
        file.chmod(mode)
    (root / "etc/ssl/private").chmod(0o710)
    os.chown(root / "etc/ssl/private", 0, 103)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "bin").symlink_to("usr/bin")
    os.mknod(root / "opt/disk", 0o060666, os.makedev(7, 200))
    (root / "var/lib/dpkg/info").mkdir()
    (root / "var/lib/dpkg/info/nginx.list").write_text("/.\n/var/lib/nginx\n/var/lib/nginx/body\n")
    os.chown(root / "var/lib/nginx/body", 33, 0)
    return root


def listing(top: Path) -> set[str]:
    return {f"/{path.relative_to(top)}" for path in top.rglob("*")}


def test_a_clone_sees_what_the_plan_says(paths: Paths, base: Path) -> None:
    paths.mask_rules.mkdir(parents=True)
    (paths.mask_rules / "a.yaml").write_text("show: [/srv/www]\nreplace: {/etc/motd: hello}\n")
    assert build.ensure(paths, root=base)

    def look() -> tuple[set[str], dict[str, bytes], dict[str, tuple[int, int, int]]]:
        root = mount_clone(paths, base)
        contents = {
            name: (root / name).read_bytes() for name in ("etc/motd", "etc/shadow", "etc/fstab", "bin/sh")
        }
        owners = {}
        for name in ("tmp", "etc/ssl/private", "var/lib/nginx/body", "etc/shadow", "", "home"):
            status = (root / name).lstat()
            owners[name] = (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
        return listing(root), contents, owners

    seen, contents, owners = apart(look)
    before = listing(base)
    gone = {path for path in before if path not in seen}
    assert {"/etc/app/key", "/home/alice", "/data", "/var/lib/nginx/body/secret", "/var/lib/other"} <= gone
    assert {"/opt/odd\n\udcff name", "/opt/disk", "/etc/ssl/private/key", "/var/cache/x", "/srv/ftp"} <= gone
    assert {"/usr/lib/systemd/system/evil.service", "/etc/systemd/system/evil.service"} <= gone
    assert {"/opt/plain \udcff", "/srv/www/index.html", "/var/lib/dpkg/status", "/var/lib/nginx/body"} <= seen
    assert "/usr/lib/systemd/system/dbus.socket" in seen
    assert contents["etc/motd"] == b"hello"
    assert contents["etc/shadow"] == b"root:*:::::::\n"
    assert b"host's" not in contents["etc/fstab"]
    assert b"host's" in contents["bin/sh"]
    assert owners["tmp"] == (0o1777, 0, 0)
    assert owners["etc/ssl/private"] == (0o710, 0, 103)
    assert owners["var/lib/nginx/body"][1:] == (33, 0)
    assert owners["etc/shadow"] == (0o640, 0, 0)
    # ``hidden`` tells without a mount the same as the kernel shows with one.
    assert {path for path in before if build.hidden(paths, path, base)} == gone


def test_hidden_files_stay_hidden_in_a_container_that_writes(paths: Paths, base: Path) -> None:
    """In a shifted clone, new files appear at the paths of hidden ones. The hidden ones never do."""
    build.ensure(paths, root=base)

    def act() -> tuple[list[str], list[str], int]:
        root = mount_clone(paths, base, shifted=True)
        owner = (root / "etc/fstab").stat().st_uid
        os.chroot(root)
        os.setgid(FIRST_ID)
        os.setuid(FIRST_ID)
        Path("/etc/app/key").write_text("the clone's")
        Path("/home/bob").mkdir()
        Path("/data").mkdir()
        Path("/usr/lib/systemd/system/own.service").write_text("")
        shutil.rmtree("/home")
        Path("/home").mkdir()
        return os.listdir("/home") + os.listdir("/data"), os.listdir("/etc/app"), owner

    names, app, owner = apart(act)
    assert names == []
    assert app == ["key"]
    assert owner == FIRST_ID


def test_an_image_holds_every_kind_of_entry(tmp_path: Path, paths: Paths) -> None:
    base = tmp_path / "host"
    (base / "a/b").mkdir(parents=True)
    (base / "a/b/gone").write_text("")
    (base / "source").write_bytes(b"x" * 5000)
    paths.run.mkdir()
    entries: dict[str, Entry] = {
        "/": Directory(Owner(0o755)),
        "/a": Directory(Owner(0o2770, 5, 6)),
        "/a/b": Directory(Owner(0o700), opaque=True),
        "/a/b/new": File(b"new", Owner(0o4711, 7, 8)),
        "/copy": Copy("/source", Owner(0o640, 0, 42)),
        "/source": Whiteout(),
        "/link": Symlink("x" * 200),
        "/l\udcff\n": Symlink("\udcff"),
    }
    image.write(entries, Tree(base).outside, paths.run, paths.mask_image)
    assert os.listdir(paths.run) == [paths.mask_image.name]
    assert command.run(["/usr/sbin/e2fsck", "-fn", str(paths.mask_image)])

    def look() -> dict[str, object]:
        root = mount_clone(paths, base)
        return {
            "b": os.listdir(root / "a/b"),
            "top": sorted(os.listdir(root)),
            "copy": (root / "copy").read_bytes(),
            "links": (os.readlink(root / "link"), os.readlink(root / "l\udcff\n")),
            "modes": [oct((root / n).lstat().st_mode) for n in ("a", "a/b", "a/b/new", "copy")],
            "owners": [
                ((root / n).lstat().st_uid, (root / n).lstat().st_gid) for n in ("a", "a/b/new", "copy")
            ],
            "lost+found": os.listdir(root / "lost+found"),
        }

    seen = apart(look)
    assert seen["b"] == ["new"]
    assert seen["top"] == ["a", "copy", "link", "lost+found", "l\udcff\n"]
    assert seen["copy"] == b"x" * 5000
    assert seen["links"] == ("x" * 200, "\udcff")
    assert seen["modes"] == ["0o42770", "0o40700", "0o104711", "0o100640"]
    assert seen["owners"] == [(5, 6), (7, 8), (0, 42)]
    assert seen["lost+found"] == []


@pytest.mark.parametrize("length", [10, 250])
def test_many_entries_fit_into_an_image(tmp_path: Path, paths: Paths, monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """The image is sized from its content: long names, many directories, whiteouts in several inodes."""
    monkeypatch.setattr("lxcfleet.host.kernel.entries._Whiteouts.MAX_LINKS", 1000)
    entries: dict[str, Entry] = {"/": Directory(Owner(0o755)), "/d": Directory(Owner(0o755))}
    entries |= {f"/d/{number:0{length}}": Whiteout() for number in range(2500)}
    entries |= {f"/{number:0{length}}": Directory(Owner(0o755), opaque=True) for number in range(300)}
    entries |= {f"/f{number}": File(b"x" * number * 10, Owner(0o644)) for number in range(300)}
    entries |= {f"/l{number}": Symlink("y" * 100) for number in range(300)}
    paths.run.mkdir()
    image.write(entries, Tree(tmp_path).outside, paths.run, paths.mask_image)
    command.run(["/usr/sbin/e2fsck", "-fn", str(paths.mask_image)])
    paths.mask_mount.mkdir()

    def count() -> tuple[int, int]:
        mount_image(paths)
        return len(os.listdir(paths.mask_mount / "d")), len(os.listdir(paths.mask_mount))

    assert apart(count) == (2500, 902)
    assert paths.mask_image.stat().st_size < 8 << 20


def test_a_full_disk_is_reported_and_leaves_no_image(paths: Paths, base: Path) -> None:
    paths.run.mkdir()

    def fill() -> tuple[str, list[str]]:
        syscalls.mount("mask-test", paths.run, "tmpfs", 0, "size=512k")
        try:
            build.ensure(paths, root=base)
        except NoCapacity as error:
            return error.why, sorted(os.listdir(paths.run))
        return "no error", []

    why, left = apart(fill)
    assert os.strerror(errno.ENOSPC) in why
    assert left == ["locks"]


def test_a_missing_mkfs_is_reported_with_its_package(paths: Paths, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "_SEARCH", "/nonexistent")
    with pytest.raises(Unsupported, match=r"mkfs\.ext4 is missing") as caught:
        build.ensure(paths, root=base)
    assert "e2fsprogs" in caught.value.hint
    assert os.listdir(paths.run) == ["locks"]


def test_a_failure_of_mkfs_is_reported_and_leaves_no_image(
    paths: Paths, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "mkfs.ext4"
    tool.write_text("#!/bin/sh\necho no such feature >&2\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setattr(image, "_SEARCH", str(tmp_path))
    with pytest.raises(HostError, match="no such feature"):
        build.ensure(paths, root=base)
    assert os.listdir(paths.run) == ["locks"]


def look(freshness: Freshness, paths: Paths) -> None:
    """Look at the host as the daemon has it done, by what changed if that is known."""
    build.ensure(paths, force=True, since=freshness.looking())
    freshness.looked()


@pytest.fixture
def freshness(paths: Paths) -> Iterator[Freshness]:
    """The freshness of a mask over the host's own root, which was built just now."""
    fresh = Freshness(paths)
    try:
        assert not fresh.is_current()
        look(fresh, paths)
        yield fresh
    finally:
        fresh.close()


QUIET_SECONDS = 150
"""The longest time that passes until no other test changes the host during a look. On a busy machine a look takes seconds."""


def settle(freshness: Freshness, paths: Paths) -> None:
    """Have the mask current. If the host changes meanwhile, the mask is built once more."""

    def settled() -> bool:
        if not freshness.is_current():
            look(freshness, paths)
        return freshness.is_current()

    until(settled, QUIET_SECONDS, "the host does not change during a look")


@pytest.mark.parametrize("change", ["mode", "group", "new", "moved in", "directory", "odd name"])
def test_a_single_change_deep_down_is_noticed(paths: Paths, freshness: Freshness, tmp_path: Path, change: str) -> None:
    """The directory is not watched by itself, no package changes, and the daemon is not restarted."""
    deep = Path("/usr/share/lxcfleet-test-deep/a/b/c")
    deep.mkdir(parents=True)
    try:
        file, private = deep / "file", tmp_path / "private"
        file.write_text("public")
        private.write_text("private")
        private.chmod(0o600)
        odd = deep / "odd (deleted)"  # as the kernel tells a removed file
        odd.mkdir()
        settle(freshness, paths)
        if change == "mode":
            file.chmod(0o640)
        elif change == "group":
            os.chown(file, 0, 42)
        elif change == "new":
            os.close(os.open(deep / "other", os.O_CREAT, 0o600))
        elif change == "moved in":
            private.rename(deep / "moved")
        elif change == "odd name":
            os.close(os.open(odd / "hidden", os.O_CREAT, 0o600))
        else:
            deep.chmod(0o700)
        assert not freshness.is_current()
        look(freshness, paths)
        entries = build.plan(paths)
        hidden = {path for path, entry in entries.items() if path.startswith(str(deep)) and not isinstance(entry, Directory)}
        expected = {"mode": {"file"}, "new": {"other"}, "moved in": {"moved"}, "odd name": {"hidden"}}
        assert {os.path.basename(path) for path in hidden} == expected.get(change, set())
        assert (change == "directory") == (isinstance(entries.get(str(deep)), Directory) and not hidden)
    finally:
        shutil.rmtree(deep.parents[2])


@pytest.mark.parametrize("place", ["/usr/share", "delta"])
def test_a_path_that_is_longer_than_the_kernel_reports_is_no_failure(paths: Paths, freshness: Freshness, place: str) -> None:
    """Any user of the host can make such directories, and any container can in its delta."""
    top = paths.lxc / "a/delta" if place == "delta" else Path(place)
    top.mkdir(parents=True, exist_ok=True)
    top /= "lxcfleet-test-long"
    top.mkdir()
    try:
        settle(freshness, paths)
        directory = os.open(top, os.O_RDONLY)
        for _ in range(25):
            os.mkdir("d" * 200, dir_fd=directory)
            below = os.open("d" * 200, os.O_RDONLY, dir_fd=directory)
            os.close(directory)
            directory = below
        freshness.take_note()
        settle(freshness, paths)
        names = map(str, count())

        def passed_over() -> bool:
            """Whether a new private file there does not count. What another test changes on the host meanwhile does."""
            settle(freshness, paths)
            os.close(os.open(f"private{next(names)}", os.O_CREAT, 0o600, dir_fd=directory))
            return freshness.is_current()

        passed_over()
        if place == "delta":
            until(passed_over, QUIET_SECONDS, "a change in a delta is passed over")
        os.close(directory)
        settle(freshness, paths)
        hidden = [path for path in build.plan(paths) if path.startswith(f"{top}/")]
        assert (place == "delta") == (not hidden), "a directory that can't be looked into is hidden, but for deltas"
    finally:
        shutil.rmtree(top)


def test_directories_for_state_follow_the_host(paths: Paths, freshness: Freshness) -> None:
    """Clones see nothing in /var/log, but have its directories."""
    directory = Path("/var/log/lxcfleet-test-state")
    settle(freshness, paths)
    directory.mkdir()
    try:
        assert not freshness.is_current()
        settle(freshness, paths)
        os.chown(directory, 1, 1)
        directory.chmod(0o2770)
        assert not freshness.is_current()
        entry = build.plan(paths)[str(directory)]
        assert isinstance(entry, Directory)
        assert entry.owner == Owner(0o2770, 1, 1)
    finally:
        directory.rmdir()


def test_changes_where_clones_see_nothing_do_not_count(paths: Paths, freshness: Freshness) -> None:
    """Containers write into their deltas, and the host into /tmp, all the time: the mask does not depend on it."""
    own = paths.lxc / "a/delta"
    own.mkdir(parents=True)
    settle(freshness, paths)
    for number in range(50):
        for directory in (own, Path("/tmp")):
            file = directory / f"lxcfleet-test-{number}"
            file.write_text("")
            file.chmod(0o600)
            file.unlink()
    freshness.take_note()
    settle(freshness, paths)


def test_an_event_queue_that_overflowed_counts_as_a_change(paths: Paths) -> None:
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    own = paths.lxc / "a"
    own.mkdir(parents=True)
    files = [own / f"{number}" for number in range(limit + 10)]
    found = Watch.on(paths.lxc)
    assert found is not None
    seen: Watch = found
    for file in files:  # the kernel keeps one of several equal events
        file.touch()
        file.chmod(0o600)
    try:
        assert seen.changed(lambda _path, _inside, _directory: False)
        # What another test changes on the host meanwhile may count.
        until(lambda: not seen.changed(lambda _path, _inside, _directory: False), what="the queue is as it was")
    finally:
        seen.close()


@pytest.mark.parametrize("case", ["several names", "a removed name", "its place is forgotten", "no doubt about its names"])
def test_a_private_file_whose_names_are_not_all_known_counts_as_a_change(
    paths: Paths, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """The kernel tells one name of a file, and none once its cache has forgotten where the file is."""
    directory = paths.lxc / "a"
    directory.mkdir(parents=True)
    file = directory / "file"
    if "name" in case:
        (directory / "other").touch(mode=0o644)
    else:
        file.touch(mode=0o644)
        monkeypatch.setattr(watch, "_told", lambda _: "/")
    asked: list[tuple[str, float | None]] = []

    def doubtful(path: str, born: float | None) -> bool:
        asked.append((path, born))
        return not case.startswith("no doubt")

    def counts(seen: Watch | None) -> bool:
        assert seen is not None
        if not file.exists():  # the kernel tells the name that it learnt last
            file.hardlink_to(directory / "other")
        with file.open() as opened:
            if case == "a removed name":  # while it is open, the kernel may tell it
                file.unlink()
            os.fchmod(opened.fileno(), 0o644)
            os.fchmod(opened.fileno(), 0o600)
            return seen.changed(lambda _path, _inside, _directory: False)

    def ours() -> list[float | None]:
        return [born for path, born in asked if path.startswith(f"{directory}/")]

    def counted() -> bool:
        assert counts(seen), "a change that was missed"
        return bool(ours())

    seen = Watch.on(paths.lxc, doubtful)
    try:
        if case.startswith("no doubt"):  # what another test changes on the host meanwhile may count
            until(lambda: not counts(seen), what="its change does not count")
        elif "name" in case:  # or it counts before this one is looked at
            until(counted, what="its change counts")
        else:
            assert counts(seen)
        assert None not in ours()
        assert bool(ours()) == ("name" in case)
    finally:
        if seen is not None:
            seen.close()


def test_processes_that_build_at_once_make_one_image(paths: Paths, base: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from lxcfleet.base.mask import build; from lxcfleet.paths import Paths\n"
        "a, b, c, root = map(Path, sys.argv[1:])\n"
        "print(build.ensure(Paths(lxc=a, run=b, etc=c), root=root))"
    )
    argv = [sys.executable, "-c", program, str(paths.lxc), str(paths.run), str(paths.etc), str(base)]
    started = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = sorted(process.communicate()[0].strip() for process in started)
    assert said == ["False", "False", "True"]


def test_no_start_meets_a_moment_without_a_mask(paths: Paths, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One child exchanges the mask in the launcher's mount namespace while others mount layers there."""
    versions = 8

    def ensure(*_: object, **__: object) -> bool:
        new = paths.run / "new"
        image.write({}, Tree(base).outside, paths.run / "work", new)
        os.rename(new, paths.mask_image)
        return True

    def look() -> tuple[set[bool], int, int]:
        mount.refresh(paths, force=True)
        changing = os.fork()
        if changing == 0:
            for _ in range(versions):
                mount.refresh(paths, force=True)
            os._exit(0)
        seen = []
        home = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        monkeypatch.setattr(layers, "mount", lambda *_: seen.append(os.path.ismount(paths.mask_mount)))
        item: PrepareItem = {
            "name": "x", "started": "", "generation": 0, "first_id": 1, "disk": 0, "app": False, "make": False, "mount": True,
            "reconcile": False, "language": False, "files": {"config": ""}, "volumes": [], "secrets": [], "devices": [],
            "stack": stack_of(paths, "x").to_json(),
        }  # fmt: skip
        while os.waitpid(changing, os.WNOHANG) == (0, 0):
            preparing._prepare_one(item, socket.socketpair()[0], paths, home, Shelf())
        mounted = Path("/proc/self/mountinfo").read_text().count(str(paths.run))
        mount.release(paths)
        return set(seen), len(seen), mounted - Path("/proc/self/mountinfo").read_text().count(str(paths.run))

    (paths.run / "work").mkdir(parents=True)
    spec = paths.container("x").spec
    spec.parent.mkdir(parents=True)
    spec.touch()
    monkeypatch.setattr(build, "ensure", ensure)
    monkeypatch.setattr(preparing, "_check", lambda *_: None)
    monkeypatch.setattr("lxcfleet.base.obstacles.refuse", lambda *_, **__: None)  # nothing is mounted where it would look
    monkeypatch.setattr(preparing, "answer", lambda *_, **__: None)
    seen, times, mounted = apart(look)
    assert (seen, mounted) == ({True}, 1)
    assert times > versions


def test_a_clone_of_this_host_shows_nothing_private(paths: Paths) -> None:
    """A clone of the host's own root has no file of the host that other users can't read."""
    assert build.ensure(paths)
    # A test that runs beside this one may have changed the host while the mask was built.
    built = "the mask is built while nothing changes"
    until(lambda: build.is_current(paths) or build.ensure(paths) is None, QUIET_SECONDS, built)
    planned = build.plan(paths)

    def look() -> tuple[list[str], bytes, bytes, list[str], set[str]]:
        root = mount_clone(paths, Path("/"))
        exposed = [found.path for found in sweep(Tree(root), {})]
        units = (root / "usr/lib/systemd/system").glob("*.service")
        services = [path.name for path in units if b"AssertPathExists=!/\n" not in path.read_bytes()]
        return (
            exposed,
            (root / "etc/shadow").read_bytes(),
            (root / "etc/machine-id").read_bytes(),
            services,
            set(os.listdir(root / "var/lib")),
        )

    exposed, shadow, machine, services, state = apart(look)
    # The mask's own entries (empty directories, neutral files) may be unreadable for others.
    seen = {path for path in exposed if not OTHERS_ETC.match(path)}
    assert {path for path in seen if not isinstance(planned.get(path), Directory | File)} == set()
    assert all(line.split(b":")[1] == b"*" for line in shadow.splitlines())
    assert machine == b""
    assert "systemd-journald.service" in services
    assert not {"ssh.service", "lxc.service", "cron.service", "postgresql.service"} & set(services)
    assert "dpkg" in state
    assert "lxc" not in state
