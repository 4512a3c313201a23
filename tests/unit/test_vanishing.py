"""Things of the host that go between a look and an act: what is not there is left out, and all else is done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.base.present import Found
from lxcfleet.host.facts import system
from lxcfleet.host.kernel import disks
from lxcfleet.host.net import uplink
from lxcfleet.host.packages import lists
from lxcfleet.host.process import maps
from lxcfleet.logs.console import Console, ConsoleRun, LineLimits
from lxcfleet.logs.entries import EntryHead, LogForm
from lxcfleet.network.name_server import NameServer
from lxcfleet.patch.rollout.change_sets import ChangeSet, ChangeSets
from lxcfleet.patch.shadow import files
from lxcfleet.patch.stale import scan
from lxcfleet.patch.stale.served import CachedEntries
from lxcfleet.patch.verify import prover
from lxcfleet.spec.container.uplinks import Uplink

from .layers_in import layer_in


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


@pytest.fixture
def going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dpkg's lists of two packages, of which one goes as soon as the directory is read."""
    info = tmp_path / "info"
    info.mkdir()
    for name in ("stays", "goes"):
        (info / f"{name}.list").write_text("/.\n/usr\n")
    entries = lists._entries

    def read(directory: Path) -> list[os.DirEntry[str]]:
        found = entries(directory)
        (info / "goes.list").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(lists, "_entries", read)
    return info


def test_a_package_that_goes_has_no_files(going: Path) -> None:
    assert lists.changed_since(0.0, going) == {"stays": ["/.", "/usr"]}


def test_a_package_that_goes_has_no_time(going: Path) -> None:
    assert lists.stamps(going).keys() == {"stays"}


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_file_of_the_hosts_that_goes_is_another_one_than_what_hides_it(tmp_path: Path, kind: str) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    if kind == "link":
        mine.symlink_to("x")
    else:
        mine.write_text("x")
    status = mine.lstat()
    with _opened(mine) as handle:
        assert not files._same(handle, status, str(theirs), status)


def test_a_link_of_the_hosts_that_goes_is_looked_for_once_more(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    mine = tmp_path / "mine"
    mine.symlink_to("x")
    other = tmp_path / "base" / "link"
    other.symlink_to("x")
    found = Found(layer_in(tmp_path, "base"), other.lstat())
    other.unlink()
    with _opened(mine) as handle:
        assert not CachedEntries.__new__(CachedEntries)._same(handle, mine.lstat(), "/link", found)


def test_a_monitor_that_goes_leaves_the_processes_of_its_container_to_be_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: int) -> Any:
        raise ProcessLookupError

    def old(pid: int) -> list[Any]:
        asked.append(pid)
        return []

    asked: list[int] = []
    monkeypatch.setattr(maps, "deleted", gone)
    monkeypatch.setattr("lxcfleet.host.process.outdated.files", old)
    target = SimpleNamespace(monitor=7, client=8)
    layer = SimpleNamespace(name="base")
    present = SimpleNamespace(bottom=SimpleNamespace(layer=layer))
    looked = SimpleNamespace(target=target, _present=present, found=[])
    scan._Container._read_companions(cast(Any, looked))
    assert asked == [8]


def test_a_console_that_goes_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "console.log"
    file.write_text("line\n")
    look = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        found = look(path, **options)
        if str(path) == str(file):
            file.unlink()
        return found

    head = EntryHead(LogForm.JOURNAL, {}, "host")
    console = Console(str(tmp_path), ConsoleRun(head), LogForm.JOURNAL, LineLimits(0, 1), over=False, skip=True)
    monkeypatch.setattr(os, "stat", stat)
    position = console._first()
    assert position is not None
    assert position.offset == len("line\n")


def test_a_configuration_that_goes_is_not_the_present_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = NameServer.__new__(NameServer)
    server._paths, server._config = cast(Any, SimpleNamespace(dnsmasq_config=tmp_path / "config")), "x"
    monkeypatch.setattr(Path, "exists", lambda _: True)
    assert not server.current


def test_a_file_system_that_is_unmounted_keeps_no_other_one_from_being_found(tmp_path: Path) -> None:
    (tmp_path / "fs/btrfs/one").mkdir(parents=True)
    (tmp_path / "fs/btrfs/one/devices").touch()  # as good as gone: it can't be listed
    (tmp_path / "fs/btrfs/two/devices/sdb").mkdir(parents=True)
    assert disks._beside("/dev/sdb", tmp_path) == ["sdb"]


def test_a_change_set_that_goes_is_none(tmp_path: Path) -> None:
    sets = ChangeSets(cast(Any, SimpleNamespace(change_sets=tmp_path / "sets")), cast(Any, None))
    sets.keep(ChangeSet("1"))
    (tmp_path / "sets/gone.json").symlink_to("nowhere")
    sets.keep(ChangeSet("2"))
    assert sets.apps() == set()
    assert sets.put_back() == {}


def test_a_bridge_that_lets_go_of_its_port_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("ifindex", "2\n"), ("type", "1\n"), ("flags", "0x1003\n")):
        (tmp_path / "eth0").mkdir(exist_ok=True)
        (tmp_path / "eth0" / name).write_text(text)
    monkeypatch.setattr(uplink, "_NET", tmp_path)
    monkeypatch.setattr("lxcfleet.host.net.interfaces._NET", tmp_path)
    monkeypatch.setattr(Path, "is_symlink", lambda _: True)
    uplink.check_parent(Uplink("eth0"))


def test_a_host_without_a_name_of_its_system_is_told_by_its_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(system, "FILES", (tmp_path / "os-release",))
    assert prover._system() == os.uname().sysname
