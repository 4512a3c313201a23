"""Files that a container is served: which ones are compared, and whether two files are alike."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from lxcfleet.base.present import Found
from lxcfleet.base.stack import Layer
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.packages import lists
from lxcfleet.host.packages.losses import Loss
from lxcfleet.host.process.alike import Alike
from lxcfleet.host.process.maps import Identity
from lxcfleet.patch.stale.served import SLACK_SECONDS, CachedEntries, Candidates, ComparedFiles, compare

OLD, START = 1_000_000.0, 2_000_000.0

ALTERNATIVES = lists.alternatives


@pytest.fixture
def info(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, one of which was installed after START."""
    made = tmp_path / "info"
    made.mkdir()
    for package, moment in (("old", OLD), ("new:amd64", START + 1)):
        home = tmp_path / package
        (home / "lib").mkdir(parents=True)
        (home / "lib" / "file").write_text(package)
        (home / "lib" / "link").symlink_to("file")
        listed = [home, home / "lib", home / "lib/file", home / "lib/link", home / "lib/gone"]
        (made / f"{package}.list").write_text("/.\n" + "".join(f"{path}\n" for path in listed))
        os.utime(made / f"{package}.list", (moment, moment))
    monkeypatch.setattr(lists, "INFO", made)
    changed_since, of, generated = lists.changed_since, lists.of, lists.generated
    monkeypatch.setattr(lists, "changed_since", lambda moment: changed_since(moment, made))
    monkeypatch.setattr(lists, "of", lambda packages: of(packages, made))
    monkeypatch.setattr(lists, "generated", lambda: generated(made))
    monkeypatch.setattr(lists, "alternatives", dict)
    return made


def chosen(wanted: ComparedFiles, since: float = START) -> set[str]:
    found = Candidates(wanted, since + SLACK_SECONDS)
    return {f"{Path(directory).parent.name} {each.name}" for directory, some in found.directories.items() for each in some}


def test_files_of_packages_that_changed_since_a_start_are_compared(info: Path) -> None:
    assert chosen(ComparedFiles()) == {"new:amd64 file", "new:amd64 link"}
    assert chosen(ComparedFiles(), OLD - 1) == {"new:amd64 file", "new:amd64 link", "old file", "old link"}
    assert chosen(ComparedFiles(), since=4e9) == set()


def test_a_file_that_was_only_linked_since_is_not_compared(info: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.host.kernel.syscalls.born", lambda path: START - 5000)
    os.link(info.parent / "new:amd64/lib/file", info.parent / "generation")
    assert chosen(ComparedFiles()) == {"new:amd64 link"}
    assert chosen(ComparedFiles(packages=("new:amd64",))) == {"new:amd64 file", "new:amd64 link"}


def test_files_of_named_packages_are_compared_whenever_they_changed(info: Path) -> None:
    named = ComparedFiles(changed=False, packages=("old",))
    assert chosen(named, since=4e9) == {"old file", "old link"}
    assert chosen(ComparedFiles(changed=False)) == set()


def test_an_upgrade_of_lxcfleet_itself_makes_no_container_stale(info: Path) -> None:
    (info / "new:amd64.list").rename(info / "lxcfleet.list")
    lost = [Loss("lxcfleet", str(info.parent / "new:amd64/lib/gone"), START + 1)]
    assert Candidates(ComparedFiles(), START + SLACK_SECONDS, lost).directories == {}
    assert chosen(ComparedFiles(packages=("lxcfleet",))) == {"new:amd64 file", "new:amd64 link"}


def test_documentation_is_left_out_unless_it_is_asked_for(info: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.patch.stale.served.DOCUMENTATION", (str(info.parent / "new:amd64"),))
    assert chosen(ComparedFiles()) == set()
    assert chosen(ComparedFiles(documentation=True)) == {"new:amd64 file", "new:amd64 link"}


def test_a_file_that_a_packages_script_made_belongs_to_the_package(info: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = info.parent / "made" / "certs"
    made.mkdir(parents=True)
    (made / "a.crt").touch()
    monkeypatch.setattr(lists, "GENERATED", {"old": (str(made),), "none": (str(info),)})
    assert chosen(ComparedFiles(changed=False, packages=("old",)), since=4e9) == {"old file", "old link", "made a.crt"}


def test_a_link_of_update_alternatives_belongs_to_the_package_to_which_it_leads(
    info: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = info.parent / "made" / "alternatives"
    made.mkdir(parents=True)
    targets = {name: str(info.parent / f"{package}/lib/file") for name, package in (("a", "new:amd64"), ("b", "old"))}
    for name, target in {**targets, "c": "/nowhere"}.items():
        (made / name).symlink_to(target)
    (made / "README").touch()
    found = ALTERNATIVES(made)
    assert found == {f"{made}/{name}": target for name, target in {**targets, "c": "/nowhere"}.items()}
    monkeypatch.setattr(lists, "alternatives", lambda: found)

    def links(wanted: ComparedFiles, since: float) -> dict[str, str]:
        return {each.name: each.package for each in Candidates(wanted, since).directories.get(str(made), ())}

    assert links(ComparedFiles(), START) == {"a": "new:amd64", "b": "dpkg", "c": "dpkg"}
    assert links(ComparedFiles(), 4e9) == {}
    assert links(ComparedFiles(changed=False, packages=("old",)), 4e9) == {"b": "old"}
    for name in "abc":  # a generation was removed: the change time of all links moves
        os.utime(made / name, (OLD, OLD), follow_symlinks=False)
    assert links(ComparedFiles(), START) == {}


def test_a_directory_is_known_by_its_real_name(info: Path) -> None:
    """/lib/x and /usr/lib/x are the same file, and one of them is enough."""
    home = info.parent / "new:amd64"
    (info.parent / "merged").symlink_to(home)
    with (info / "new:amd64.list").open("a") as file:
        file.write(f"{info.parent}/merged/lib/file\n")
    os.utime(info / "new:amd64.list", (START + 1, START + 1))
    candidates = Candidates(ComparedFiles(), START + SLACK_SECONDS)
    assert [each.name for each in candidates.directories[str(home / "lib")]] == ["file", "link"]
    assert len(candidates.directories) == 1


class Cache:
    """A container's cached look-ups, in which every file that the kernel has differs from the host's."""

    def __init__(self, cached: Sequence[Path], hidden: Sequence[Path] = ()) -> None:
        self.cached, self.hidden = {str(path) for path in cached}, {str(path) for path in hidden}
        self.asked: list[str] = []

    def shows(self, directory: str) -> bool:
        return not any(f"{directory}/".startswith(f"{point}/") for point in self.hidden)

    def mounts_below(self, directory: str) -> bool:
        return any(point.startswith(f"{directory}/") for point in self.hidden)

    def has(self, directory: str) -> bool:
        self.asked.append(directory)
        return any(f"{path}/".startswith(f"{directory}/") for path in self.cached)

    def differing(self, directory: str, names: Sequence[str]) -> Iterator[tuple[str, Found]]:
        return ((name, Found(BASE, None)) for name in names if f"{directory}/{name}" in self.cached)


BASE = Layer("base", "/", "/", idmapped=True, hosts=True, neutral=False, opaque=None)


def test_below_a_directory_that_a_container_never_looked_up_nothing_is_asked_for(info: Path) -> None:
    candidates = Candidates(ComparedFiles(), OLD + SLACK_SECONDS - 1)
    file = info.parent / "new:amd64/lib/file"
    cache = Cache([file])
    served = compare(cast(CachedEntries, cache), candidates, START)
    assert (served.files, served.compared) == ([(str(file), "new:amd64", "base")], 4)
    assert not [path for path in cache.asked if path.startswith(f"{info.parent}/old/")]
    later = compare(cast(CachedEntries, Cache([file])), candidates, 4e9)
    assert (later.files, later.compared) == ([], 0)


def test_what_is_mounted_over_files_of_a_package_is_not_compared_with_them(info: Path) -> None:
    candidates = Candidates(ComparedFiles(), OLD + SLACK_SECONDS - 1)
    home = info.parent
    files = [home / "new:amd64/lib/file", home / "old/lib/file"]
    served = compare(cast(CachedEntries, Cache(files, hidden=[home / "old"])), candidates, START)
    assert (served.files, served.compared) == ([(str(files[0]), "new:amd64", "base")], 2)


def test_modules_are_those_that_changed_since_an_interpreter_began(info: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import re

    monkeypatch.setattr("lxcfleet.patch.stale.served.MODULES", {"python": re.compile(re.escape(str(info.parent)))})
    candidates = Candidates(ComparedFiles(), START + SLACK_SECONDS)
    assert {package for package, _ in candidates.modules("python", OLD)} == {"new:amd64"}
    assert list(candidates.modules("python", 4e9)) == []


def test_wanted_is_read_as_it_was_written() -> None:
    wanted = ComparedFiles(False, True, ("a", "b"))
    assert ComparedFiles.from_json(wanted.to_json()) == wanted


def test_files_are_alike_by_their_content(tmp_path: Path) -> None:
    one, two, other, longer = (tmp_path / name for name in ("one", "two", "other", "longer"))
    for path, content in ((one, b"a" * 3_000_000), (two, b"a" * 3_000_000), (other, b"a" * 2_999_999 + b"b"), (longer, b"a")):
        path.write_bytes(content)

    def same(first: Path, second: Path) -> bool:
        return alike.same(Identity.of(first.stat()), str(first), Identity.of(second.stat()), str(second))

    alike = Alike()
    assert same(one, two)
    assert not same(one, other)
    assert not same(one, longer)
    two.unlink()
    two.mkdir()
    identity = Identity.of(one.stat())
    assert not alike.same(identity, str(one), identity, str(two)), "no file"
    assert not alike.same(identity, str(one), identity._replace(inode=1), str(tmp_path / "none"))


def test_two_files_are_compared_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    two.write_text("a")
    alike, before, after = Alike(), Identity.of(one.stat()), Identity.of(two.stat())
    assert alike.same(before, str(one), after, str(two))
    one.unlink()
    assert alike.same(before, str(one), after, str(two)), "remembered"


@pytest.mark.parametrize(("failures", "found"), [(0, True), (2, True), (3, False)])
def test_a_name_in_the_kernels_cache_is_found_though_something_is_mounted_at_that_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, found: bool
) -> None:
    left = [failures]

    def ask(*_: object) -> int:
        if left[0]:
            left[0] -= 1
            ctypes.set_errno(errno.EAGAIN)
            return -1
        return os.open(tmp_path, os.O_PATH)

    monkeypatch.setattr(syscalls, "_libc", SimpleNamespace(syscall=ask))
    handle = syscalls.look_remembered(0, "name")
    assert (handle is not None) is found
    if handle is not None:
        os.close(handle)
