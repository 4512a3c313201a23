"""A look at what changed in the host's root finds what a look at all of it would find."""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Container, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.base.mask import build, sweep
from lxcfleet.base.mask.build import Since
from lxcfleet.base.mask.freshness import MOST, Freshness
from lxcfleet.base.mask.sweep import BaseChanges
from lxcfleet.base.tree import Tree, stamp
from lxcfleet.host.kernel import image
from lxcfleet.host.kernel.entries import Directory, Owner
from lxcfleet.paths import Paths

from .mask_tree import put, small_host

REAL_SCANDIR = os.scandir
PLAN = {"/": Directory(Owner(0o755)), "/c": Directory(Owner(0o755), opaque=True)}
SHOWN = "/a/b"
NAMES = ("a", "b", "c")
MODES = (0o644, 0o640, 0o755, 0o750, 0o711)
OPERATIONS = ("write", "mkdir", "chmod", "remove", "rename", "mount")


class Base:
    """A tree that is changed, and what the kernel tells of that; see fanotify(7)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts = {"/"}
        self.forget()

    def forget(self) -> None:
        """Whatever changes from now on is told."""
        self.inside: set[str] = set()
        self.below: set[str] = set()
        self.itself: set[str] = set()

    @property
    def changes(self) -> BaseChanges:
        return BaseChanges(frozenset(self.inside), frozenset(self.below), frozenset(self.itself))

    def came(self, path: str) -> None:
        above = path.rpartition("/")[0] or "/"
        self.inside.add(above)
        if os.path.isdir(f"{self.root}{path}"):
            self.below.add(above)

    def free(self, place: Path) -> bool:
        return place.parent.is_dir() and not place.exists()

    def do(self, operation: str, path: str, other: str, mode: int) -> None:
        here, there = Path(f"{self.root}{path}"), Path(f"{self.root}{other}")
        if operation == "mount":
            self.mounts ^= {path}
            return
        if operation == "write" and self.free(here):
            here.touch()
            here.chmod(mode)
            self.came(path)
        elif operation == "mkdir" and self.free(here):
            here.mkdir()
            here.chmod(mode | 0o700)
            self.came(path)
        elif operation == "chmod" and here.exists():
            here.chmod(mode | (0o700 if here.is_dir() else 0))
            self.itself.add(path)
        elif operation == "remove" and here.exists():
            shutil.rmtree(here) if here.is_dir() else here.unlink()
        elif operation == "rename" and here.exists() and self.free(there) and here not in there.parents:
            here.rename(there)
            self.came(other)


paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(lambda names: "/" + "/".join(names))
"""Never the top, which is always mounted."""
acts = st.tuples(st.sampled_from(OPERATIONS), paths, paths, st.sampled_from(MODES))


@settings(max_examples=40)  # each makes and looks through a real tree
@given(st.lists(acts, max_size=40), st.lists(st.lists(acts, max_size=12), min_size=1, max_size=4))
def test_a_look_at_the_changes_finds_what_a_look_at_everything_finds(
    first: list[tuple[str, str, str, int]], rounds: list[list[tuple[str, str, str, int]]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        base = Base(Path(directory))
        for path in ("/a", "/a/b", "/a/b/c", "/b"):
            base.do("mkdir", path, path, 0o755)
        for act in first:
            base.do(*act)
        former = sweep.sweep(Tree(base.root), PLAN, exempt=[SHOWN], mounts=base.mounts - {SHOWN})
        for acts_now in rounds:
            base.forget()
            base.itself.add("/")
            for act in acts_now:
                base.do(*act)
            mounts = base.mounts - {SHOWN}  # the plan's digest has exempt paths that are mounts
            known = [each.path for each in former]
            again = sweep.sweep_again(Tree(base.root), PLAN, known, base.changes, exempt=[SHOWN], mounts=mounts)
            former = sweep.sweep(Tree(base.root), PLAN, exempt=[SHOWN], mounts=mounts)
            assert sorted(again, key=lambda each: each.path) == sorted(former, key=lambda each: each.path)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO])
def test_what_can_not_be_looked_at_stays_private(
    base: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As a FUSE mount of another user, of which not even root sees the status."""
    put(base, "data/public/file")
    put(base, "data/known/secret", mode=0o600)
    first = sweep.sweep(Tree(base), {})
    assert [each.path for each in first] == ["/data/known/secret"]
    closed = {str(base / "data/public"), str(base / "data/known")}
    real = os.lstat

    def refuse(path: str) -> os.stat_result:
        if any(f"{path}/".startswith(f"{each}/") for each in closed):
            raise OSError(code, os.strerror(code), path)
        return real(path)

    monkeypatch.setattr(os, "lstat", refuse)
    monkeypatch.setattr(os, "scandir", lambda handle: Entries(handle, closed, code))
    expected = {sweep.Private(f"/data/{name}", False, f"unreadable: {os.strerror(code)}") for name in ("public", "known")}
    changed = BaseChanges(itself=frozenset({"/data/public"}))
    assert set(sweep.sweep_again(Tree(base), {}, ["/data/known/secret"], changed)) == expected
    assert set(sweep.sweep(Tree(base), {})) == expected
    monkeypatch.undo()
    assert sweep.sweep_again(Tree(base), {}, ["/data/public", "/data/known"], BaseChanges()) == first


class Entries:
    """The entries of a directory, of which some have no status; os.scandir."""

    def __init__(self, handle: int, closed: Container[str], code: int) -> None:
        self._found, self._closed, self._code = REAL_SCANDIR(handle), closed, code
        self._directory = os.readlink(f"/proc/self/fd/{handle}")

    def __enter__(self) -> Iterator[object]:
        return map(self._entry, self._found)

    def __exit__(self, *_: object) -> None:
        self._found.close()

    def _entry(self, entry: "os.DirEntry[str]") -> object:
        if f"{self._directory}/{entry.name}" not in self._closed:
            return entry

        def refuse(**_: object) -> os.stat_result:
            raise OSError(self._code, os.strerror(self._code))

        return SimpleNamespace(name=entry.name, is_symlink=lambda: False, stat=refuse)


def test_a_directory_that_can_not_be_listed_to_its_end_counts_as_private(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(Entries):
        def _entry(self, entry: "os.DirEntry[str]") -> object:
            if self._directory.endswith("/data"):
                raise OSError(errno.EIO, "Input/output error")
            return entry

    put(base, "data/file")
    monkeypatch.setattr(os, "scandir", lambda handle: Failing(handle, (), errno.EIO))
    assert sweep.sweep(Tree(base), {}) == [sweep.Private("/data", True, "unreadable: Input/output error")]


# -- the record -----------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(image, "write", lambda _entries, _root, _work, target: target.write_text("image"))
    return Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return small_host(tmp_path / "host")


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets an entry for each look at everything."""
    looks: list[str] = []
    real = sweep.sweep

    def count(*arguments: object, **options: object) -> list[sweep.Private]:
        looks.append("")
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("lxcfleet.base.mask.compiler.sweep", count)
    return looks


def since(own: Paths, *inside: str) -> Since:
    return Since(stamp(str(own.mask_record)), BaseChanges(inside=frozenset(inside)))


def test_only_what_changed_is_looked_at(own: Paths, base: Path, whole: list[str]) -> None:
    build.ensure(own, root=base)
    for name, mode in (("new-secret", 0o600), ("new", 0o644)):
        (base / "usr/lib" / name).touch()
        (base / "usr/lib" / name).chmod(mode)
    assert build.ensure(own, root=base, force=True, since=since(own, "/usr/lib"))
    assert len(whole) == 1
    assert build.hidden(own, "/usr/lib/new-secret", base)
    assert not build.hidden(own, "/usr/lib/new", base)
    assert build.is_current(own, base)


def test_everything_is_looked_at_if_a_watched_directory_shows_what_the_kernel_did_not_tell(
    own: Paths, base: Path, whole: list[str]
) -> None:
    build.ensure(own, root=base)
    put(base, "etc/program/deep/secret-of-nobody", mode=0o600)
    assert build.ensure(own, root=base, force=True, since=since(own))
    assert len(whole) == 2
    assert build.hidden(own, "/etc/program/deep/secret-of-nobody", base)


def test_watched_directories_that_went_or_are_looked_at_anyway_are_no_reason_for_more(
    own: Paths, base: Path, whole: list[str]
) -> None:
    put(base, "opt/program/etc/file")
    put(base, "opt/former/file")
    build.ensure(own, root=base)
    put(base, "opt/program/etc/secret", mode=0o600)
    shutil.rmtree(base / "opt/former")
    changes = BaseChanges(inside=frozenset({"/opt"}), below=frozenset({"/opt"}))
    assert build.ensure(own, root=base, force=True, since=Since(stamp(str(own.mask_record)), changes))
    assert len(whole) == 1
    assert build.hidden(own, "/opt/program/etc/secret", base)


@pytest.mark.parametrize("reason", ["another look", "other rules", "a former version", "what is kept"])
def test_everything_is_looked_at_if_the_changes_do_not_tell_all(
    own: Paths, base: Path, whole: list[str], reason: str
) -> None:
    build.ensure(own, root=base)
    before = since(own)
    if reason == "another look":  # by other changes than those that this daemon knows of
        put(base, "etc/other", mode=0o600)
        build.ensure(own, root=base)
    elif reason == "other rules":
        own.mask_rules.mkdir(parents=True)
        (own.mask_rules / "own.yaml").write_text("show: [/data]\n")
    elif reason == "a former version":
        text = own.mask_record.read_text().replace('"settled"', '"other"')
        own.mask_record.write_text(text)
        before = since(own)
    else:  # another package's directory in /var is shown, empty
        put(base, "var/lib/dpkg/info/new.list", "/var/lib/new\n")
        put(base, "var/lib/new/x")
    whole.clear()
    put(base, "usr/share/deep/secret", mode=0o600)
    build.ensure(own, root=base, force=True, since=before)
    assert len(whole) == 1
    assert build.hidden(own, "/usr/share/deep/secret", base)


# -- what is known of changes ---------------------------------------------------------------------------


class FakeWatch:
    """The kernel's word, made up."""

    def __init__(self) -> None:
        self.told: list[tuple[str, bool, bool]] = []
        self.overflowed = False

    def changed(self, matters: object) -> bool:
        told, self.told = self.told, []
        found = [matters(*each) for each in told]  # type: ignore[operator]
        overflowed, self.overflowed = self.overflowed, False
        return overflowed or any(found)

    def close(self) -> None:
        """Nothing."""


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeWatch:
    watch = FakeWatch()
    monkeypatch.setattr("lxcfleet.base.mask.freshness.Watch.on", lambda *_: watch)
    return watch


@pytest.fixture
def fresh(own: Paths, base: Path, kernel: FakeWatch) -> Freshness:
    """A mask that has just been built."""
    freshness = Freshness(own, base)
    assert not freshness.is_current()
    assert freshness.looking() is None
    build.ensure(own, root=base, force=True)
    freshness.looked()
    assert freshness.is_current()
    return freshness


def test_what_matters_is_what_is_looked_at(fresh: Freshness, kernel: FakeWatch) -> None:
    kernel.told = [("/usr/lib", True, False), ("/usr/bin/sh", False, False)]
    kernel.told += [("/tmp", True, True), ("/usr/share", True, True)]
    assert not fresh.is_current()
    found = fresh.looking()
    assert found is not None
    assert found.changes == BaseChanges(
        inside=frozenset({"/usr/lib", "/usr/share"}), below=frozenset({"/usr/share"}), itself=frozenset({"/usr/bin/sh"})
    )
    fresh.failed()
    assert fresh.looking() is None


def test_what_changes_during_a_look_is_judged_by_what_it_found(
    own: Paths, base: Path, fresh: Freshness, kernel: FakeWatch
) -> None:
    put(base, "usr/share/closed/x").parent.chmod(0o700)
    kernel.told = [("/usr/share", True, True)]
    assert not fresh.is_current()
    assert build.ensure(own, root=base, force=True, since=fresh.looking())
    kernel.told = [("/usr/share/closed", True, False), ("/usr/lib", True, False)]
    fresh.take_note()
    fresh.looked()
    assert not fresh.is_current()
    found = fresh.looking()
    assert found is not None
    assert found.changes.inside == {"/usr/lib"}, "nobody sees what is in the closed directory"


@pytest.mark.parametrize(
    ("path", "age", "doubtful"),
    [
        ("/home/alice/key", 3600.0, True),
        ("/home/alice/key", None, True),
        ("/home/alice/key", -3600.0, True),
        ("/home/alice/key", 0.0, False),
        ("LXC/web/base-1", 3600.0, False),
        ("LXC/.lxcfleet/generations/1/usr/bin/x", 0.0, True),
    ],
)
def test_a_private_file_may_have_names_that_clones_see(
    own: Paths, fresh: Freshness, path: str, age: float | None, doubtful: bool
) -> None:
    """The kernel tells one of its names. Of a new file it told each as it came."""
    born = None if age is None else time.time() - age
    assert fresh._is_doubtful(path.replace("LXC", str(own.lxc)), born) is doubtful


class Clock:
    """The wall clock and the monotonic one, in place of the module ``time``."""

    def __init__(self) -> None:
        self.passed, self.set = 1000.0, 1e9

    def time(self) -> float:
        return self.set + self.passed

    def monotonic(self) -> float:
        return self.passed


@pytest.mark.parametrize("noticed", ["before the look", "at the look"])
def test_births_are_not_believed_after_the_clock_was_set_back(
    own: Paths, base: Path, kernel: FakeWatch, monkeypatch: pytest.MonkeyPatch, noticed: str
) -> None:
    """A file of before that may seem younger than the last look."""
    clock = Clock()
    monkeypatch.setattr("lxcfleet.base.mask.freshness.time", clock)
    fresh = Freshness(own, base)
    clock.passed += 10
    fresh.take_note()
    born = clock.time()
    clock.passed += 1
    clock.set -= 60
    if noticed == "before the look":
        fresh.take_note()
    for _ in range(2):  # the step is remembered longer than until the next look
        fresh.looking()
        fresh.looked()
        clock.passed += 20
    clock.passed += 40
    assert fresh._began < born < clock.time()
    assert fresh._is_doubtful("/home/alice/key", born)
    new = clock.time()
    clock.passed += 5
    assert not fresh._is_doubtful("/home/alice/key", new)
    assert kernel.told == []


@pytest.mark.parametrize("trouble", ["overflow", "too many", "somebody looked"])
def test_if_not_all_changes_are_known_everything_is_looked_at(
    own: Paths, base: Path, fresh: Freshness, kernel: FakeWatch, trouble: str
) -> None:
    if trouble == "overflow":
        kernel.overflowed = True
    elif trouble == "too many":
        kernel.told = [(f"/usr/lib/{number}", False, False) for number in range(MOST + 1)]
    else:
        put(base, "etc/other", mode=0o600)
        assert build.ensure(own, root=base)
    assert not fresh.is_current()
    assert fresh.looking() is None
