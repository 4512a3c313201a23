"""Generations on trees of files that packages change as dpkg does, and others as they like."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.base.generations import build, changes, manifest, store, writing
from lxcfleet.base.generations.changes import ChangedDirectory, Needs
from lxcfleet.base.generations.manifest import (
    DirectoryStatus,
    FileIdentity,
    Folder,
    LinkedFile,
    Manifest,
    MergedSheets,
    Stamp,
)
from lxcfleet.base.generations.places import SheetPlace, word_of
from lxcfleet.base.generations.record import Generation, dump, parse
from lxcfleet.base.generations.roots import sheets_of
from lxcfleet.base.generations.sheets import Sheets
from lxcfleet.base.generations.verify import verify
from lxcfleet.base.mask import compiler
from lxcfleet.base.tree import Tree
from lxcfleet.errors import Broken, Busy, HostError, NoCapacity, NotFound, Unsupported
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.host.kernel.entries import Directory, Symlink, Whiteout
from lxcfleet.host.packages import dpkg
from lxcfleet.paths import Paths
from lxcfleet.spec.files.mask_rules import Rules

NOW = 1_800_000_000.0
OWNED = "var/lib/dpkg/info/tool.list"
Shot = dict[str, tuple[object, ...]]


@pytest.fixture(autouse=True)
def _swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole host's writing is not waited for."""
    monkeypatch.setattr(syscalls, "sync_file_system", lambda descriptor: None)


def paths_in(top: Path) -> Paths:
    return Paths(top / "lxc", top / "run", top / "etc")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return paths_in(tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return small_host(tmp_path / "host")


def small_host(root: Path) -> Path:
    """A much reduced host. What is below /usr/bin and /usr/lib belongs to the package `tool`."""
    files = {
        "usr/bin/tool": 0o755, "usr/lib/tool/a": 0o644, "usr/lib/tool/b": 0o644, "usr/lib/tool/c": 0o644,
        "usr/local/bin/script": 0o755, "etc/tool.conf": 0o644, "etc/tool/key": 0o600, "etc/hosts": 0o644,
        "home/alice/diary": 0o644, "srv/www/page": 0o644, "var/lib/dpkg/available": 0o644, "var/lib/other/state": 0o644,
        "opt/app/run": 0o755, "opt/private/x": 0o644,
    }  # fmt: skip
    for name, mode in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
        file.chmod(mode)
    (root / "opt/private").chmod(0o700)
    for name in ("tmp", "run", "proc", "root"):
        (root / name).mkdir()
    (root / "bin").symlink_to("usr/bin")
    owned(root, "usr/bin/tool", *(f"usr/lib/tool/{name}" for name in "abcd"))
    return root


def owned(root: Path, *names: str) -> None:
    file = root / OWNED
    file.parent.mkdir(parents=True, exist_ok=True)
    replace(file, "".join(f"/{name}\n" for name in ("usr", *names)))


def replace(file: Path, text: str) -> None:
    """As dpkg does."""
    new = file.with_name(f"{file.name}.dpkg-new")
    new.write_text(text)
    os.rename(new, file)


def freeze(paths: Paths, root: Path) -> Generation:
    made = build.freeze(paths, "a test", root=root, now=NOW)
    assert made is not None
    return made


def shot_of(view: Sheets, path: str = "/") -> Shot:
    """All that a generation shows."""
    outside = view.outside(path)
    status = os.lstat(outside)
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return {path: ("link", os.readlink(outside))}
    if stat.S_ISREG(status.st_mode):
        return {path: ("file", mode, status.st_mtime_ns, Path(outside).read_bytes())}
    assert stat.S_ISDIR(status.st_mode), path
    found: Shot = {path: ("directory", mode)}
    for name in view.names(path):
        found |= shot_of(view, f"{path.rstrip('/')}/{name}")
    return found


def shot_of_host(root: Path, tops: tuple[str, ...] = ("usr", "etc", "opt", "var/lib/dpkg")) -> Shot:
    """All that a generation of the host must show below ``tops``: told another way than the code does."""
    found: Shot = {}
    for top in tops:
        for directory, folders, files in os.walk(root / top):
            folders[:] = [name for name in folders if not name.startswith(".lxcfleet-generations")]
            inside = f"/{Path(directory).relative_to(root)}"
            mode = stat.S_IMODE(os.lstat(directory).st_mode)
            found[inside] = ("directory", mode)
            if mode & 0o005 != 0o005:
                folders.clear()
                continue
            for name in (*files, *folders):
                file, path = Path(directory, name), f"{inside}/{name}"
                status = os.lstat(file)
                if file.is_symlink():
                    found[path] = ("link", os.readlink(file))
                elif stat.S_ISREG(status.st_mode):
                    secret = top in ("etc", "var/lib/dpkg") and "/info/" not in path and not status.st_mode & 0o004
                    content = b"" if secret else file.read_bytes()
                    found[path] = ("file", stat.S_IMODE(status.st_mode), status.st_mtime_ns, content)
    return found


def below(shot: Shot) -> Shot:
    return {path: each for path, each in shot.items() if path.startswith(("/usr", "/etc", "/opt", "/var/lib/dpkg"))}


# -- what is frozen stays -------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d", "odd \udcff\n:name", "local")
PLACES = st.tuples(
    st.sampled_from(("usr/lib/tool", "usr/local", "etc", "opt/app", "var/lib/dpkg/info")),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
).map(lambda each: "/".join((each[0], *each[1])))
KINDS = st.sampled_from(("file", "folder", "link", "remove", "mode", "same", "in place"))
STEPS = st.tuples(KINDS, PLACES, st.integers(0, 99))


def clear(file: Path) -> None:
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


def change(root: Path, step: tuple[str, str, int]) -> None:
    """One change of the host, as packages or administrators make it; none that can't be made."""
    kind, place, number = step
    file = root / place
    above = file.parent
    while not above.is_dir():
        if os.path.lexists(above):
            above.unlink()
        above = above.parent
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        replace(file, str(number))
        file.chmod(0o640 if number % 5 == 0 else 0o644)
    elif kind == "folder":
        if not file.is_dir() or file.is_symlink():
            clear(file)
            file.mkdir()
    elif kind == "link":
        clear(file)
        file.symlink_to(("a", "../b", "/etc", "/nowhere")[number % 4])
    elif kind == "remove":
        clear(file)
    elif kind == "mode" and file.is_dir() and not file.is_symlink():
        file.chmod((0o755, 0o700, 0o1777)[number % 3])
    elif kind == "same" and file.is_file() and not file.is_symlink():
        replace(file, file.read_text())
    elif kind == "in place" and place.startswith("etc") and file.is_file() and not file.is_symlink():
        file.write_text(f"{number} in place")


def parts_of(paths: Paths, root: Path, points: Iterable[str], home: str = "/") -> tuple[SheetPlace, ...]:
    """The places for a host with file systems of their own at these points. Sheets beside the records are on ``home``."""
    others = sorted({"/", *points} - {home})
    elsewhere = (SheetPlace(word_of(each), each, Path(f"{root}{each}", paths.sheets_elsewhere)) for each in others)
    return SheetPlace("", home, paths.sheets), *elsewhere


POINTS = st.sets(st.sampled_from(("/usr", "/opt", "/usr/local", "/var/lib")))


@given(
    st.lists(st.lists(STEPS, max_size=6), min_size=1, max_size=7), st.randoms(use_true_random=False), st.booleans(),
    st.lists(st.one_of(st.just(set[str]()), POINTS), min_size=8, max_size=8), st.sampled_from(("/", "/var")),
)  # fmt: skip
@settings(max_examples=20)
def test_what_was_frozen_stays_whatever_becomes_of_the_host(
    patches: list[list[tuple[str, str, int]]], random: Any, squash: bool, parts: list[set[str]], home: str
) -> None:
    """On one file system, or on several, which the host may have others of each time."""
    with tempfile.TemporaryDirectory() as top, pytest.MonkeyPatch.context() as patched:
        patched.setattr(changes, "MOST_SHEETS", 2 if squash else 6)
        patched.setattr(changes, "MOST_CHANGED", 0.5)
        paths, root = paths_in(Path(top)), small_host(Path(top) / "host")
        frozen: dict[int, Shot] = {}
        patches.insert(0, [])
        for patch in patches:
            before = shot_of_host(root)
            for step in patch:
                change(root, step)
            points = parts.pop()
            patched.setattr(build, "present", lambda paths, root, points=points: parts_of(paths, root, points, home))
            now = shot_of_host(root)
            made = build.freeze(paths, "", root=root, now=NOW)
            if made is None:
                # A file that was written anew with its content is the same, and only its time is another.
                assert [each[-1] for each in before.values()] == [each[-1] for each in now.values()]
            else:
                assert made.number not in frozen
                frozen[made.number] = now
                assert below(shot_of(store.view(paths, made))).keys() == now.keys()
                assert all(each in (f"s{made.number}", *sheets_there(paths, root)) for each in made.sheets)
            if len(frozen) > 2 and random.random() < 0.5:
                store.remove(paths, gone := random.choice(sorted(frozen)))
                del frozen[gone]
            assert shot_of_host(root) == now
            assert store.numbers(paths) == sorted(frozen)
            assert store.leftovers(paths) == []
            for number, shot in frozen.items():
                shown = below(shot_of(store.view(paths, store.load(paths, number))))
                assert timeless(shown) == timeless(shot), number
                assert verify(paths, number).good
        for number in random.sample(sorted(frozen), len(frozen)):
            store.remove(paths, number)
        assert os.listdir(paths.sheets) == []
        assert sheets_there(paths, root) == []
        assert [*root.rglob(f"{paths.sheets_elsewhere}*")] == []
        assert shot_of_host(root) == now


def sheets_there(paths: Paths, root: Path) -> list[str]:
    """The names in all directories of sheets."""
    places = [paths.sheets, *root.rglob(paths.sheets_elsewhere)]
    return sorted(name for place in places for name in os.listdir(place) if name != "CACHEDIR.TAG")


def timeless(shot: Shot) -> Shot:
    """Without the times of settings, which may be older: the same content was written again."""
    return {path: (*each[:2], *each[3:]) if path.startswith(("/etc", "/var")) else each for path, each in shot.items()}


@given(st.data())
@settings(max_examples=60)
def test_a_list_of_files_is_read_as_it_was_written(data: st.DataObject) -> None:
    numbers, times, ids = st.integers(1, 2**63), st.integers(-(2**62), 2**62), st.integers(0, 2**32 - 2)
    name = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=8)
    odd = name.map(lambda text: text + "\udcff")
    folders = {}
    for path in ("/", "/a", "/a/b\udcfe", "/c"):
        names = data.draw(st.lists(st.one_of(name, odd), max_size=8, unique=True))
        kinds = [data.draw(st.sampled_from("lfchg")) for _ in names]
        attributes = data.draw(st.sampled_from([(), (("user.x", b"\0\xff"),)]))
        folder = folders[path] = Folder(DirectoryStatus(0o755, 1, 2**32 - 2, attributes))
        for each, kind in zip(names, kinds, strict=True):
            if kind in "lf":
                linked = LinkedFile(0o4755, data.draw(ids), data.draw(ids))
                stamp = folder.stamps[each] = Stamp(data.draw(numbers), data.draw(numbers), data.draw(times), linked)
                folder.linked[each] = stamp.inode
                if kind == "f":
                    folder.foreign[each] = stamp.size
            elif kind == "g":
                folder.gone.add(each)
            else:
                folder.copied[each] = FileIdentity(data.draw(numbers), 5, data.draw(times), data.draw(times))
                if kind == "h":
                    folder.hollow.add(each)
    written = manifest.encode(Manifest(7, folders))
    assert manifest.decode(written, "x", stamps=True) == Manifest(7, folders)
    plain = manifest.decode(written, "x")
    assert [*plain.folders] == [*folders]
    assert all(plain.folders[path].linked == folders[path].linked for path in folders)
    cut = data.draw(st.integers(0, len(written) - 1))
    for damaged in (written[:cut], written[:cut] + bytes([written[cut] ^ 1]) + written[cut + 1 :]):
        with pytest.raises(Broken, match="x:"):
            manifest.decode(damaged, "x")


# -- what is linked, and what is copied ------------------------------------------------------------------------------


def test_packages_files_are_the_hosts_own_and_others_are_copies(paths: Paths, host: Path) -> None:
    made = freeze(paths, host)
    view = store.view(paths, made)

    def linked(path: str) -> bool:
        return os.path.samefile(view.outside(path), f"{host}{path}")

    assert linked("/usr/bin/tool")
    assert linked("/var/lib/dpkg/info/tool.list")
    assert not any(map(linked, ("/usr/local/bin/script", "/opt/app/run", "/etc/tool.conf", "/var/lib/dpkg/available")))
    assert (made.number, made.sheets, made.whole, made.linked_foreign) == (1, ("s1",), True, 0)
    assert made.files == made.linked + made.copied == len([each for each in shot_of(view).values() if each[0] != "directory"])
    assert made.created == "2027-01-15T08:00:00Z"
    assert stat.S_IMODE(paths.generations.stat().st_mode) == stat.S_IMODE((paths.sheets / "s1").stat().st_mode) == 0o700
    assert (paths.generations / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_nothing_is_taken_along_that_containers_do_not_see(paths: Paths, host: Path) -> None:
    (host / "etc/shadow").write_text("root:$y$hash:19000:0:99999:7:::\n")
    (host / "etc/shadow").chmod(0o640)
    (host / "etc/ssl/private").mkdir(parents=True, mode=0o700)
    (host / "etc/ssl/private/key").write_text("secret")
    os.mkfifo(host / "usr/lib/tool/fifo")
    shot = shot_of(store.view(paths, freeze(paths, host)))
    assert shot["/etc/tool/key"][-1] == b""
    assert shot["/etc/shadow"][-1] == b"root:*:::::::\n"
    assert {"/home", "/srv", "/tmp", "/etc/ssl/private", "/opt/private", "/bin", "/var/lib/dpkg"} <= shot.keys()
    hidden = ("/home/alice", "/srv/www", "/etc/ssl/private/key", "/opt/private/x",
              "/usr/lib/tool/fifo", "/var/lib/other/state")  # fmt: skip
    assert not shot.keys() & set(hidden)


def test_what_the_operator_shows_is_there(paths: Paths, host: Path) -> None:
    paths.mask_rules.mkdir(parents=True)
    rules = paths.mask_rules / "own.yaml"
    freeze(paths, host)
    (host / "opt/closed/inside").mkdir(parents=True)
    (host / "opt/closed/inside/file").write_text("")
    (host / "opt/closed/other").write_text("")
    (host / "opt/closed").chmod(0o700)
    rules.write_text("show: [/srv/www, /etc/tool/key, /opt/private, /opt/closed/inside]\n")
    shot = shot_of(store.view(paths, freeze(paths, host)))
    assert "/opt/closed/inside/file" in shot
    assert "/opt/closed/other" not in shot
    assert shot["/etc/tool/key"][-1] == b"etc/tool/key"
    assert "/srv/www/page" in shot
    assert "/opt/private/x" in shot
    rules.unlink()
    shot = shot_of(store.view(paths, freeze(paths, host)))
    assert shot["/etc/tool/key"][-1] == b""
    assert not shot.keys() & {"/srv/www", "/opt/private/x"}


def test_the_mask_of_a_generation_is_that_of_the_host(paths: Paths, host: Path) -> None:
    (host / "var/lib/tool").mkdir(mode=0o755)
    (host / "var/lib/tool/conf").symlink_to("/etc/tool")
    (host / "var/lib/tool/made").symlink_to("/etc/other")
    owned(host, "usr/bin/tool", "var/lib/tool", "var/lib/tool/conf")
    freeze(paths, host)
    ours, _ = compiler.plan(paths, Rules(), Tree(host))
    frozen, _ = compiler.plan(paths, Rules(), Tree(store.sheet(paths, "s1")))
    assert "/var/lib/tool" in frozen
    assert isinstance(frozen["/var/lib/tool/conf"], Symlink)
    assert "/tmp" in frozen
    assert not frozen.keys() - ours.keys()
    for path, entry in ours.items():
        if path in frozen:
            assert frozen[path] == entry
        else:  # only what a generation has not need not be hidden
            assert isinstance(entry, Whiteout) or (isinstance(entry, Directory) and entry.opaque)


def test_large_files_of_nobody_are_linked_and_counted(paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "MOST_COPIED", 3 * 4096)
    (host / "opt/app/large").write_bytes(bytes(8000))
    (host / "usr/lib/python/__pycache__").mkdir(parents=True)
    (host / "usr/lib/python/__pycache__/x.pyc").write_bytes(bytes(10))
    made = freeze(paths, host)
    view = store.view(paths, made)
    assert os.path.samefile(view.outside("/opt/app/large"), host / "opt/app/large")
    assert os.path.samefile(view.outside("/usr/lib/python/__pycache__/x.pyc"), host / "usr/lib/python/__pycache__/x.pyc")
    assert not os.path.samefile(view.outside("/opt/app/run"), host / "opt/app/run")
    assert (made.linked_foreign, made.linked_foreign_bytes) == (1, 8000)
    (host / "opt/app/large").unlink()
    assert freeze(paths, host).linked_foreign == 0


def test_later_sheets_have_what_differs_and_touch_nothing_else(paths: Paths, host: Path) -> None:
    freeze(paths, host)
    assert build.freeze(paths, "", root=host, now=NOW) is None
    times = {name: (host / name).stat().st_ctime_ns for name in ("usr/bin/tool", "usr/lib/tool/a", "usr/lib/tool/b")}
    replace(host / "usr/lib/tool/a", "patched")
    (host / "usr/lib/tool/c").unlink()
    made = freeze(paths, host)
    assert (made.sheets, made.linked, made.copied, made.whole) == (("s2", "s1"), 1, 0, False)
    sheet = store.sheet(paths, "s2")
    assert sorted(os.listdir(sheet / "usr/lib/tool")) == ["a", "c"]
    assert stat.S_ISCHR((sheet / "usr/lib/tool/c").lstat().st_mode)
    changed = [name for name, time in times.items() if (host / name).stat().st_ctime_ns != time]
    assert changed == ["usr/lib/tool/a"]
    # The same content under another inode, as needless writers leave it, is no change.
    replace(host / "etc/tool.conf", "etc/tool.conf")
    (host / "etc/tool.conf").chmod(0o644)
    assert build.freeze(paths, "", root=host, now=NOW) is None


def test_a_long_chain_becomes_two_sheets_or_a_whole_one(paths: Paths, host: Path) -> None:
    for number in range(200):
        (host / f"usr/lib/tool/more{number}").write_text("")
    owned(host, "usr/lib/tool/a", *(f"usr/lib/tool/more{number}" for number in range(200)))
    for number in range(7):
        replace(host / "usr/lib/tool/a", str(number))
        last = freeze(paths, host)
    assert last.sheets == ("s7", "s1")
    assert last.linked == 1
    for number in range(7, 12):
        replace(host / "usr/lib/tool/a", str(number))
        for each in range(20):
            replace(host / f"usr/lib/tool/more{20 * (number - 7) + each}", str(number))
        last = freeze(paths, host)
    assert last.sheets == ("s12",)
    assert last.whole


# -- what is refused, or goes wrong ----------------------------------------------------------------------------------


def test_what_was_written_in_place_is_found(paths: Paths, host: Path) -> None:
    freeze(paths, host)
    replace(host / "usr/lib/tool/b", "patched")
    made = freeze(paths, host)
    assert verify(paths, 2).good
    with open(host / "usr/lib/tool/a", "a") as file:
        file.write("leaks")
    (host / "etc/tool.conf").write_text("another")
    assert verify(paths, 2).written == ["/usr/lib/tool/a"]
    Path(store.view(paths, made).outside("/etc/tool.conf")).write_text("meddled")
    (store.sheet(paths, "s1") / "usr/bin/tool").unlink()
    (store.sheet(paths, "s1") / "usr/lib/tool/b").unlink()  # the second sheet has its own
    (store.sheet(paths, "s2") / "etc").mkdir()
    shutil.rmtree(store.sheet(paths, "s1") / "opt")
    report = verify(paths, 2)
    assert report.written == ["/etc/tool.conf", "/usr/lib/tool/a"]
    assert report.missing == ["/opt", "/usr/bin/tool"]
    assert report.strange == ["/etc"]
    (store.sheet(paths, "s2") / "usr/planted").write_text("")
    assert verify(paths, 2).strange == ["/etc", "/usr/planted"]
    assert verify(paths, 1).missing == ["/opt", "/usr/bin/tool", "/usr/lib/tool/b"]
    shutil.rmtree(paths.sheets / "s1")
    assert verify(paths, 2).missing == ["s1"]
    # A sheet that is gone is no base of another.
    assert freeze(paths, host).whole


def test_a_mode_or_an_owner_that_the_host_has_changed_is_found(paths: Paths, host: Path) -> None:
    freeze(paths, host)
    replace(host / "usr/lib/tool/b", "patched")
    freeze(paths, host)
    (host / "usr/lib/tool/a").chmod(0o4755)
    (host / "usr/lib/tool/b").chmod(0o600)  # the first sheet has another file under this name
    (host / "etc/tool.conf").chmod(0o600)  # the generation has a copy
    assert [verify(paths, number).altered for number in (1, 2)] == [
        ["/usr/lib/tool/a"], ["/usr/lib/tool/a", "/usr/lib/tool/b"]
    ]  # fmt: skip
    assert not verify(paths, 1).good
    assert verify(paths, 1).written == []
    (host / "usr/lib/tool/a").write_text("written as well, and told once")
    report = verify(paths, 1)
    assert (report.written, report.altered) == (["/usr/lib/tool/a"], [])


def test_a_list_without_owners_is_of_use(paths: Paths, host: Path) -> None:
    """The first format did not have them."""
    freeze(paths, host)
    file = store.manifest_file(paths, "s1")
    file.write_bytes(as_first_format(file.read_bytes()))
    (host / "usr/lib/tool/a").chmod(0o4755)
    assert verify(paths, 1).good
    (host / "usr/lib/tool/a").write_text("in place")
    assert verify(paths, 1).written == ["/usr/lib/tool/a"]


def as_first_format(content: bytes) -> bytes:
    """A list of files without its last three columns."""
    line, _, rest = zlib.decompress(content[:-32]).partition(b"\n")
    head = json.loads(line)
    *lengths, modes, uids, gids = head["lengths"]
    body = json.dumps({**head, "format": 1, "lengths": lengths}).encode() + b"\n" + rest[: len(rest) - modes - uids - gids]
    packed = zlib.compress(body)
    return packed + hashlib.sha256(packed).digest()


def test_a_sheet_that_was_restored_is_not_taken_for_links(paths: Paths, host: Path) -> None:
    freeze(paths, host)
    shutil.copytree(paths.sheets / "s1", paths.sheets / "copy", symlinks=True)
    shutil.rmtree(paths.sheets / "s1")
    (paths.sheets / "copy").rename(paths.sheets / "s1")
    assert verify(paths, 1).missing == ["s1"]
    assert freeze(paths, host).whole


def test_nothing_is_frozen_while_dpkg_is_at_work(paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpkg, "holder", lambda admin, waiting: None if waiting else 4711)
    with pytest.raises(Busy, match="4711"):
        freeze(paths, host)
    assert build.freeze(paths, "", root=host, now=NOW, waiting=True) is not None
    monkeypatch.setattr(dpkg, "trouble", lambda admin: "tool is unpacked, not configured")
    with pytest.raises(Busy, match="unpacked"):
        build.freeze(paths, "", root=host, now=NOW, waiting=True)


def test_nothing_is_frozen_after_dpkg_was_interrupted(paths: Paths, host: Path) -> None:
    updates = host / "var/lib/dpkg/updates"
    updates.mkdir()
    (host / "var/lib/dpkg/status").write_text("")
    (updates / "0001").write_text("Package: tool\n")
    with pytest.raises(Busy, match=r"(?s)dpkg was interrupted.*dpkg --configure -a"):
        freeze(paths, host)
    assert os.listdir(paths.sheets) == []


def test_a_downgrade_is_a_patch_like_any_other(paths: Paths, host: Path) -> None:
    replace(host / "usr/lib/tool/a", "2")
    newer = freeze(paths, host)
    replace(host / "usr/lib/tool/a", "1")
    older = freeze(paths, host)
    assert older.sheets == ("s2", "s1")
    shown = [Path(store.view(paths, each).outside("/usr/lib/tool/a")).read_text() for each in (newer, older)]
    assert shown == ["2", "1"]


def test_a_sheet_that_was_removed_by_hand_is_told(paths: Paths, host: Path) -> None:
    freeze(paths, host)
    replace(host / "usr/lib/tool/a", "2")
    freeze(paths, host)
    shutil.rmtree(paths.sheets / "s1")
    for number in (1, 2):
        with pytest.raises(Broken, match="s1/tree is gone"):
            sheets_of(paths, number)
        assert verify(paths, number).missing == ["s1"]
    # It is no way back any more, and can be removed.
    store.remove(paths, 1)
    store.remove(paths, 2)
    assert os.listdir(paths.sheets) == []
    assert (host / "usr/lib/tool/a").read_text() == "2"


def test_a_freeze_into_which_dpkg_came_is_dropped(paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = writing.Writer.write

    def write(self: writing.Writer, what: changes.Changes) -> None:
        real(self, what)
        replace(host / OWNED, "/other\n")

    monkeypatch.setattr(writing.Writer, "write", write)
    with pytest.raises(Busy, match="meanwhile"):
        freeze(paths, host)
    assert store.numbers(paths) == []
    assert os.listdir(paths.sheets) == []


@pytest.mark.parametrize(("step", "number"), [("link", errno.ENOSPC), ("mkdir", errno.EDQUOT)])
def test_a_full_disk_leaves_nothing(
    paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    real = getattr(os, step)

    def full(name: Any, *arguments: Any, **options: Any) -> None:
        if name == "tool":
            raise OSError(number, os.strerror(number), name)
        real(name, *arguments, **options)

    monkeypatch.setattr(os, step, full)
    with pytest.raises(NoCapacity, match="no room"):
        freeze(paths, host)
    assert os.listdir(paths.sheets) == []
    assert store.numbers(paths) == []


def test_too_little_room_is_told_before_anything_is_written(
    paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = build.room(paths, root=host)
    assert needs.links > 5
    assert needs.directories > 10
    tiny = os.statvfs_result((4096, 4096, 1000, 51, 51, 1000, 900, 900, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: tiny)
    with pytest.raises(NoCapacity, match=f"{needs.directories} directories"):
        freeze(paths, host)
    assert os.listdir(paths.sheets) == []
    assert not (paths.generations / "last").exists()


@pytest.mark.parametrize(
    ("free", "inodes", "told"),
    [
        (2 << 30, 9000, ""),
        ((1 << 30) + 1000, 9000, "the sheet takes 1 MiB (10 directories, 4 copies), 1024 MiB are free"),
        (2 << 30, 500, "the sheet takes 18 inodes (10 directories, 4 copies), 500 are free, and 500 must stay free"),
        (2 << 30, None, ""),
    ],
)
def test_room(free: int, inodes: int | None, told: str) -> None:
    assert changes.room(Needs(10, 4, 20, 1 << 20, 18), free, inodes, 1 << 40, 10_000)[: len(told) or None] == told


def test_a_part_on_another_file_system_is_named(paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(name: Any, *arguments: Any, **options: Any) -> None:
        if name == "b":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(name, *arguments, **options)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(Unsupported, match="/usr/lib/tool/b is on a file system of its own"):
        freeze(paths, host)
    assert os.listdir(paths.sheets) == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMLINK])
def test_a_file_that_can_not_be_linked_is_copied(
    paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.link

    def link(name: Any, *arguments: Any, **options: Any) -> None:
        if name == "tool":
            raise OSError(number, os.strerror(number))
        real(name, *arguments, **options)

    monkeypatch.setattr(os, "link", link)
    view = store.view(paths, freeze(paths, host))
    assert Path(view.outside("/usr/bin/tool")).read_text() == "usr/bin/tool"
    assert not os.path.samefile(view.outside("/usr/bin/tool"), host / "usr/bin/tool")
    assert build.freeze(paths, "", root=host, now=NOW) is None


def test_what_vanishes_meanwhile_is_not_there(paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze(paths, host)
    for name in ("a", "b"):
        replace(host / "usr/lib/tool" / name, "patched")
    (host / "opt/app/new").mkdir()
    (host / "opt/app/new/x").write_text("")
    (host / "opt/app/later").write_text("")
    real = changes.with_parents

    def vanish(found: changes.Changes, live: Any) -> changes.Changes:
        (host / "usr/lib/tool/a").unlink()
        shutil.rmtree(host / "opt/app/new")
        (host / "opt/app/new").symlink_to("/etc")
        return real(found, live)

    monkeypatch.setattr(changes, "with_parents", vanish)
    shot = shot_of(store.view(paths, freeze(paths, host)))
    assert "/usr/lib/tool/a" not in shot
    assert "/usr/lib/tool/b" in shot
    assert not [path for path in shot if path.startswith("/opt/app/new")]
    assert "/opt/app/later" in shot


def test_a_file_that_grows_meanwhile_is_not_copied_whatever_it_takes(
    paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = changes.needs

    def grow(found: changes.Changes) -> Needs:
        with open(host / "opt/app/run", "r+b") as file:
            file.truncate(3 << 20)
        return real(found)

    monkeypatch.setattr(changes, "needs", grow)
    made = freeze(paths, host)
    assert made.bytes < 1 << 20
    assert (made.linked_foreign, made.linked_foreign_bytes) == (1, 3 << 20)
    assert os.path.samefile(store.view(paths, made).outside("/opt/app/run"), host / "opt/app/run")
    assert verify(paths, 1).good


def test_too_deep_a_tree_is_refused(paths: Paths, host: Path) -> None:
    deep = host / "opt/app"
    for _ in range(201):
        deep /= "d"
    deep.mkdir(parents=True)
    with pytest.raises(Unsupported, match="200 directories deep"):
        freeze(paths, host)


# -- on disk ---------------------------------------------------------------------------------------------------------


def test_numbers_are_never_given_twice(paths: Paths, host: Path) -> None:
    for number in (1, 2, 3):
        replace(host / "usr/bin/tool", str(number))
        assert freeze(paths, host).number == number
    store.remove(paths, 3)
    store.remove(paths, 2)
    replace(host / "usr/bin/tool", "more")
    assert freeze(paths, host).number == 4
    with pytest.raises(NotFound):
        store.remove(paths, 2)
    with pytest.raises(NotFound):
        store.load(paths, 3)


def test_sheets_go_with_the_last_generation_that_has_them(paths: Paths, host: Path) -> None:
    for number in range(3):
        replace(host / "usr/bin/tool", str(number))
        freeze(paths, host)
    store.remove(paths, 1)
    assert sorted(os.listdir(paths.sheets)) == ["s1", "s2", "s3"]
    store.remove(paths, 3)
    assert sorted(os.listdir(paths.sheets)) == ["s1", "s2"]
    store.remove(paths, 2)
    assert os.listdir(paths.sheets) == []
    assert (host / "usr/bin/tool").stat().st_nlink == 1


def test_while_a_record_is_broken_no_sheet_counts_as_left_over(paths: Paths, host: Path) -> None:
    freeze(paths, host)
    replace(host / "usr/bin/tool", "patched")
    freeze(paths, host)
    paths.generation_record(1).write_text("{}")
    with pytest.raises(Broken, match=r"1\.json"):
        store.load(paths, 1)
    store.remove(paths, 2)
    assert sorted(os.listdir(paths.sheets)) == ["s1", "s2"]
    store.remove(paths, 1)
    assert os.listdir(paths.sheets) == []


GOOD = Generation(3, "2026-01-01T00:00:00Z", ("s3", "s1"), "a patch", 10, 2, 1, 4096, "00", 0)


@pytest.mark.parametrize("generation", [GOOD, dataclasses.replace(GOOD, linked_foreign_bytes=7)])
def test_a_record_is_read_as_it_was_written(generation: Generation) -> None:
    assert parse(dump(generation).encode(), "x") == generation


def test_a_record_of_a_former_version_is_read() -> None:
    former = json.loads(dump(GOOD)) | {"rejected": "", "held": "", "held_until": ""}
    assert parse(json.dumps(former).encode(), "x") == GOOD


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sheets", ["s1.../x"]), ("sheets", ["s1/usr"]), ("version", 2), ("number", 0), ("number", True),
        ("number", "3"), ("sheets", []), ("sheets", ["../x"]),
        ("sheets", ["s1", "s1"]), ("sheets", [1]), ("created", "yesterday"), ("created", ""), ("files", -1), ("extra", 1),
        ("why", None),
    ],
)  # fmt: skip
def test_a_record_with_a_mistake_is_refused(key: str, value: object) -> None:
    data = json.loads(dump(GOOD)) | {key: value}
    with pytest.raises(Broken, match="3\\.json"):
        parse(json.dumps(data).encode(), "3.json")
    del data[key]
    if key != "extra":
        with pytest.raises(Broken):
            parse(json.dumps(data).encode(), "3.json")


# -- file systems of their own ---------------------------------------------------------------------------------------


@pytest.fixture
def split(paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with a /usr and a /opt of their own; gives where the sheets of /usr are."""
    monkeypatch.setattr(build, "present", lambda paths, root: parts_of(paths, root, ("/usr", "/opt")))
    return host / "usr" / paths.sheets_elsewhere


def test_each_file_system_has_its_own_sheets(paths: Paths, host: Path, split: Path) -> None:
    made = freeze(paths, host)
    assert made.sheets == ("s1", "s1.opt", "s1.usr")
    assert (made.whole, made.levels) == (True, (("s1", "s1.opt", "s1.usr"),))
    assert stat.S_IMODE(split.stat().st_mode) == 0o700
    assert (split / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")
    assert os.path.samefile(split / "s1.usr/tree/usr/bin/tool", host / "usr/bin/tool")
    assert not (paths.sheets / "s1/tree/usr").exists()
    assert made.bytes > 0
    # A patch of /usr alone takes no sheet on /opt.
    replace(host / "usr/lib/tool/a", "patched")
    second = freeze(paths, host)
    assert second.sheets == ("s2", "s2.usr", "s1", "s1.opt", "s1.usr")
    assert not second.whole
    assert [verify(paths, number).good for number in (1, 2)] == [True, True]
    with open(host / "usr/lib/tool/a", "a") as file:
        file.write("in place")
    assert [verify(paths, number).written for number in (1, 2)] == [[], ["/usr/lib/tool/a"]]
    store.remove(paths, 2)
    store.remove(paths, 1)
    assert not split.exists()


def test_many_sheets_of_several_file_systems_are_counted_by_freezes(
    paths: Paths, host: Path, split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty patches in an hour: the chain stays short."""
    del split
    monkeypatch.setattr(changes, "MOST_CHANGED", 0.9)
    for number in range(30):
        replace(host / "usr/lib/tool/a", str(number))
        replace(host / "opt/app/run", str(number))
        made = freeze(paths, host)
        assert len(made.levels) <= changes.MOST_SHEETS
        assert made.levels[-1] == ("s1", "s1.opt", "s1.usr")
        for old in store.numbers(paths)[:-3]:
            store.remove(paths, old)
    assert [verify(paths, number).good for number in store.numbers(paths)] == [True] * 3
    assert len(sheets_there(paths, host)) <= 3 * (changes.MOST_SHEETS + 1)
    for number in store.numbers(paths):
        store.remove(paths, number)
    assert sheets_there(paths, host) == []


def test_a_file_system_that_is_not_mounted_is_found_out(paths: Paths, host: Path, split: Path) -> None:
    freeze(paths, host)
    split.rename(host / "elsewhere")
    assert verify(paths, 1).missing == ["s1.usr"]
    assert freeze(paths, host).whole, "nothing is built upon a generation that is not all there"
    shutil.rmtree(split)
    (host / "elsewhere").rename(split)
    assert verify(paths, 1).good


def test_where_sheets_are_is_never_guessed(paths: Paths, host: Path, split: Path) -> None:
    freeze(paths, host)
    file = paths.generations / "places.json"
    text = file.read_text()
    for wrong in ("", "[]", "{"):
        file.write_text(wrong)
        with pytest.raises(Broken, match=r"places\.json"):
            store.view(paths, store.load(paths, 1))
        with pytest.raises(Broken):
            store.tidy(paths)
        assert verify(paths, 1).missing == ["s1.opt", "s1.usr"]
    file.write_text('{"usr": "relative", "etc": "/etc"}')
    with pytest.raises(Broken, match="does not say"):
        store.sheet(paths, "s1.usr")
    assert split.exists()
    file.write_text(text)
    assert verify(paths, 1).good


@pytest.mark.parametrize(
    ("flags", "mode", "point", "told"),
    [
        (os.ST_RDONLY, 0o755, "/usr", "read-only.*remount,rw /usr"), (os.ST_NOEXEC | os.ST_NOSUID, 0o755, "/opt", ""),
        (0, 0o775, "/usr", "chmod go-w /usr"), (0, 0o1777, "/opt", ""),
        (0, 0o757, "/opt", "others than root"), (0, 0o755, "/usr", ""),
    ],
)  # fmt: skip
def test_a_file_system_that_can_have_no_sheet_is_refused(
    paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch, flags: int, mode: int, point: str, told: str
) -> None:
    system = os.statvfs_result((4096, 4096, 10**9, 10**9, 10**9, 10**9, 10**9, 10**9, flags, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: system)
    monkeypatch.setattr(build, "present", lambda paths, root: parts_of(paths, root, (point,)))
    (host / point[1:]).chmod(mode)
    if not told:
        assert freeze(paths, host).sheets == ("s1", f"s1.{point[1:]}")
        return
    with pytest.raises(Unsupported, match=f"(?s){told}"):
        freeze(paths, host)
    assert not (host / point[1:] / paths.sheets_elsewhere).exists()
    assert os.listdir(paths.sheets) == []


def test_somebody_elses_directory_is_not_used(paths: Paths, host: Path, split: Path) -> None:
    split.mkdir(mode=0o755)
    with pytest.raises(HostError, match="only root can enter"):
        freeze(paths, host)
    split.rmdir()
    split.symlink_to("/tmp")
    with pytest.raises(HostError, match="only root can enter"):
        freeze(paths, host)


def test_the_room_on_each_file_system_counts(
    paths: Paths, host: Path, split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = os.statvfs_result((4096, 4096, 1000, 51, 51, 1000, 900, 900, 0, 255))
    roomy = os.statvfs_result((4096, 4096, 10**9, 10**9, 10**9, 10**9, 10**9, 10**9, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda path: tiny if Path(path) == host / "opt" else roomy)
    with pytest.raises(NoCapacity, match=f"file system of {host}/opt"):
        freeze(paths, host)
    assert not split.exists()


def test_a_file_system_that_is_full_leaves_nothing_on_the_others(
    paths: Paths, host: Path, split: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def full(name: Any, *arguments: Any, **options: Any) -> None:
        if name == "tool":
            raise OSError(errno.ENOSPC, "No space left on device", name)
        real(name, *arguments, **options)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(NoCapacity):
        freeze(paths, host)
    assert split.exists()
    assert sheets_there(paths, host) == []


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"null"])
def test_a_record_that_is_cut_off_is_refused(text: bytes) -> None:
    with pytest.raises(Broken):
        parse(text, "3.json")


def test_a_link_of_a_lower_sheet_leads_nowhere(tmp_path: Path) -> None:
    for name in ("top/a", "low", "lowest/a"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "low/a").symlink_to("/etc")
    (tmp_path / "lowest/a/x").write_text("")
    sheets = Sheets(f"{tmp_path}/{name}" for name in ("top", "low", "lowest"))
    assert sheets.names("/a") == []
    for path in ("/a/passwd", "/a/x", "/a/x/y", "/" + "d/" * 3000):
        assert not os.path.lexists(sheets.outside(path))
    assert sheets.outside("/a") == f"{tmp_path}/top/a"


def test_sheets_add_up_as_overlays_do() -> None:
    status = DirectoryStatus(0o755, 0, 0)
    low = {"/": Folder(status, {"f": 1}), "/d": Folder(status, {"x": 2}), "/d/e": Folder(status, {"y": 3})}
    middle = {"/": Folder(status, {"d": 4}, gone={"f"})}
    high = {"/": Folder(status), "/d": Folder(status, {"z": 5}), "/f": Folder(status)}
    merged = MergedSheets([low, middle, high])
    assert {path: folder.linked for path, folder in merged.folders.items()} == {"/": {}, "/d": {"z": 5}, "/f": {}}
    assert merged.directories("/") == {"d", "f"}
    assert low["/"].linked == {"f": 1}


def test_needs_count_what_is_copied() -> None:
    copied = {"b": FileIdentity(1, 5000, 0, 0), "h": FileIdentity(2, 9000, 0, 0)}
    found = {"/": ChangedDirectory(DirectoryStatus(0o755, 0, 0), 0, ["a"], copied, {"h"})}
    needed = changes.needs(found)
    assert (needed.directories, needed.copies, needed.links) == (1, 2, 1)
    assert 3 * 4096 <= needed.bytes < 5 * 4096
    assert changes.needs({}) == Needs(0, 0, 0, 0, 0)


# -- kill -9 ---------------------------------------------------------------------------------------------------------

KILLED: list[tuple[object, str]] = [
    (os, "link"), (os, "mkdir"), (os, "utime"), (os, "mknod"), (manifest, "encode"), (syscalls, "sync_file_system"),
    (syscalls, "rename_new"), (tree, "sync_directory"), (tree, "write"), (os, "rename"), (os, "unlink"), (os, "rmdir"),
]  # fmt: skip


def killed(work: Callable[[], object], where: object, step: str, *, after: bool) -> bool:
    """Do ``work`` in a child that is killed before or after a step; gives whether it came so far."""
    real = getattr(where, step)
    pid = os.fork()
    if pid == 0:

        def die(*arguments: object, **options: object) -> None:
            if after:
                real(*arguments, **options)
            os.kill(os.getpid(), signal.SIGKILL)

        try:
            setattr(where, step, die)
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.reaches("processes", reason="a child that freezes is killed")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("points", [(), ("/usr", "/usr/local", "/opt")], ids=["whole", "split"])
def test_a_freeze_or_removal_that_is_killed_leaves_the_old_or_the_new(
    paths: Paths, host: Path, monkeypatch: pytest.MonkeyPatch, points: tuple[str, ...], after: bool
) -> None:
    monkeypatch.setattr(build, "present", lambda paths, root: parts_of(paths, root, points))
    freeze(paths, host)
    whole = sheets_there(paths, host)
    assert len(whole) == 1 + len(points)
    first = shot_of(store.view(paths, store.load(paths, 1)))
    reached = set()
    for number, (where, step) in enumerate(KILLED):
        replace(host / "usr/lib/tool/a", str(number))
        (host / "etc/more").write_text(str(number))
        replace(host / "opt/app/run", str(number))
        (host / "usr/lib/tool/c").unlink(missing_ok=True)
        if killed(lambda: freeze(paths, host), where, step, after=after):
            reached.add(step)
        for each in store.numbers(paths):
            assert verify(paths, each).good
        build.freeze(paths, "", root=host, now=NOW)
        known = store.numbers(paths)
        if killed(lambda each=known[1]: store.remove(paths, each), where, step, after=after):  # type: ignore[misc]
            reached.add(f"{step} in removal")
        left = store.numbers(paths)
        assert left in (known, known[:1])
        for each in left:
            assert verify(paths, each).good
        for each in left[1:]:
            store.remove(paths, each)
        store.tidy(paths)
        assert sheets_there(paths, host) == whole
        assert shot_of(store.view(paths, store.load(paths, 1))) == first
        assert (host / "usr/lib/tool/a").read_text() == str(number)
    assert reached >= {step for _, step in KILLED} - {"rmdir"} | {"rmdir in removal", "rename_new in removal"}
