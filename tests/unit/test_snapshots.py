"""Snapshots on disk: records, names, and restorations that are broken off at each step."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.cli.ui import output
from lxcfleet.containers.copies import copy_cost
from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.data import restoring, snapshots
from lxcfleet.data.snapshots import Snapshot
from lxcfleet.errors import AlreadyExists, Broken, Busy, HostError, InvalidInput, NotFound, WrongState
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.launcher.client import Launcher
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.snapshots import MOST_SECONDS, SCHEDULE, Pause, Schedule, check_snapshot
from lxcfleet.spec.reading.reader import Fields

MADE = Snapshot("web", "a", "2026-01-01T00:00:00.000Z", "why", "asked", 65536, "2025-01-01T00:00:00Z", 4096, False, 12)
KEPT = replace(MADE, name="before", made_by="restore", frozen_ms=None)


class Killed(BaseException):
    """The process that did it was killed."""


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """A container that had “one” when its snapshot a was made, and has “two” now."""

    def copy(source: Path, target: Path, _: int) -> None:
        shutil.copytree(source, target, dirs_exist_ok=True)

    monkeypatch.setattr("lxcfleet.host.process.copying.copy", copy)
    monkeypatch.setattr("lxcfleet.host.lxc.monitor.runs", lambda *_: False)
    made = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    own = made.container("web")
    own.delta.mkdir(parents=True)
    write(made, "one")
    snapshots.take(made, "web", "a", 0)
    snapshots.seal(made, MADE)
    write(made, "two")
    return made


def write(paths: Paths, text: str) -> None:
    own = paths.container("web")
    (own.delta / "f").write_text(text)
    own.base_record.write_text(json.dumps({"base": text}))
    own.base_snapshot(text).write_text(text)


def has(paths: Paths) -> tuple[str, str]:
    """The text in the container's delta, and the base that its record names."""
    own = paths.container("web")
    base = json.loads(own.base_record.read_text())["base"]
    assert own.base_snapshot(base).read_text() == base
    return (own.delta / "f").read_text(), base


def of(paths: Paths, name: str) -> tuple[str, str]:
    own = paths.snapshot("web", name)
    return (own.delta / "f").read_text(), json.loads(own.base_record.read_text())["base"]


def test_a_record_is_read_as_it_is_written() -> None:
    for each in (MADE, KEPT):
        assert snapshots.parse(snapshots.dump(each).encode(), "f") == each


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3}, {"version": 2}, {"created": "today"}, {"bytes": "4"}, {"shared": 1}, {"frozen_ms": 1.5}, {"more": 1},
        {"bytes": True},
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(change: dict[str, Any]) -> None:
    data = {**json.loads(snapshots.dump(MADE)), **change}
    with pytest.raises(Broken):
        snapshots.parse(json.dumps(data).encode(), "f")


def test_a_record_that_was_cut_off_is_refused() -> None:
    data = json.loads(snapshots.dump(MADE))
    for key in data:
        with pytest.raises(Broken):
            snapshots.parse(json.dumps({k: v for k, v in data.items() if k != key}).encode(), "f")


def test_the_record_of_another_container_does_not_count(paths: Paths) -> None:
    paths.snapshots_of("web").rename(paths.snapshots_of("db"))
    assert isinstance(snapshots.load(paths, "db", "a"), Broken)
    with pytest.raises(NotFound):
        snapshots.get(paths, "web", "a")


def test_a_snapshot_holds_what_the_container_had(paths: Paths) -> None:
    assert of(paths, "a") == ("one", "one")
    assert snapshots.names(paths, "web") == ["a"]
    assert snapshots.containers(paths) == ["web"]
    assert [each.stat().st_mode & 0o777 for each in (paths.snapshots, paths.snapshots_of("web"))] == [0o700, 0o700]
    snapshots.take(paths, "web", "a", 0)
    assert snapshots.names(paths, "web") == ["a"]
    with pytest.raises(AlreadyExists):
        snapshots.seal(paths, MADE)
    assert of(paths, "a") == ("one", "one")


def test_a_seal_that_is_asked_for_again_is_done(paths: Paths) -> None:
    snapshots.seal(paths, MADE)
    assert snapshots.load(paths, "web", "a") == MADE


def test_a_copy_that_fails_leaves_nothing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise HostError("disk full")

    monkeypatch.setattr("lxcfleet.host.process.copying.copy", full)
    with pytest.raises(HostError):
        snapshots.take(paths, "web", "b", 0)
    assert snapshots.leftovers(paths) == []
    with pytest.raises(HostError):
        restoring.restore(paths, "web", "a", KEPT, 0)
    assert snapshots.leftovers(paths) == []
    assert has(paths) == ("two", "two")


def test_a_base_that_can_not_be_kept_leaves_nothing(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(snapshots, "keep_base", full)
    with pytest.raises(OSError, match="No space left"):
        snapshots.take(paths, "web", "b", 0)
    assert snapshots.leftovers(paths) == []


def test_a_name_that_can_not_be_forced_to_the_disk_is_none(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, it was told as an error, and the snapshot stayed, which nobody could make anew by that name."""
    made = replace(MADE, name="b")
    snapshots.take(paths, "web", "b", 0)
    with monkeypatch.context() as patch:
        patch.setattr(tree, "sync_directory", _fails_below(paths.snapshots_of("web")))
        with pytest.raises(OSError, match="Input/output"):
            snapshots.seal(paths, made)
    assert snapshots.names(paths, "web") == ["a"]
    assert snapshots.leftovers(paths) == [("web", f"{Paths.NEW_PREFIX}b")]
    snapshots.seal(paths, made)
    assert snapshots.names(paths, "web") == ["a", "b"]


def _fails_below(directory: Path) -> Callable[[Path], None]:
    """In place of ``sync_directory``: the one directory gives errors."""

    def sync(asked: Path) -> None:
        if asked == directory:
            raise OSError(errno.EIO, "Input/output error")

    return sync


def test_a_snapshot_is_removed_by_its_new_name(paths: Paths) -> None:
    gone = snapshots.retire(paths, "web", "a")
    assert snapshots.names(paths, "web") == []
    assert snapshots.leftovers(paths) == [("web", gone)]
    assert snapshots.retire(paths, "web", "a") == ""
    snapshots.remove(paths, "web", gone)
    assert not paths.snapshots.exists()


def test_a_snapshot_that_is_read_is_not_removed(paths: Paths) -> None:
    reading = snapshots.keep_for_reading(paths, "web", "a")
    with pytest.raises(Busy, match="is in use"):
        snapshots.retire(paths, "web", "a")
    assert snapshots.names(paths, "web") == ["a"]
    os.close(reading)
    assert snapshots.retire(paths, "web", "a")
    with pytest.raises(NotFound):
        snapshots.keep_for_reading(paths, "web", "a")


def test_what_is_half_made_is_set_aside(paths: Paths) -> None:
    snapshots.take(paths, "web", "b", 0)
    ((container, directory),) = snapshots.leftovers(paths)
    gone = snapshots.set_aside(paths, container, directory)
    assert gone.startswith(Paths.GONE_PREFIX)
    assert snapshots.set_aside(paths, container, gone) == gone
    snapshots.remove(paths, container, gone)
    assert snapshots.leftovers(paths) == []


def test_a_daemon_s_start_removes_the_directories_of_a_snapshot_that_was_killed_before_it_had_anything(paths: Paths) -> None:
    for empty in ("web2", "web3"):
        paths.snapshots_of(empty).mkdir()
    files = SnapshotFiles(paths, cast(Launcher, None), Bus())
    assert files.set_aside("web2") == []
    assert sorted(path.name for path in paths.snapshots.iterdir()) == ["web", "web3"]
    assert files.set_aside() == []
    assert [path.name for path in paths.snapshots.iterdir()] == ["web"]
    assert snapshots.names(paths, "web") == ["a"]
    snapshots.remove(paths, "web", snapshots.retire(paths, "web", "a"))
    paths.snapshots.mkdir()
    assert files.set_aside() == []
    assert not paths.snapshots.exists()


@pytest.mark.parametrize("kept", [KEPT, None])
def test_a_restored_container_has_the_snapshot_s_delta_and_base(kept: Snapshot | None, paths: Paths) -> None:
    restoring.restore(paths, "web", "a", kept, 0)
    assert has(paths) == ("one", "one")
    assert of(paths, "a") == ("one", "one")
    assert snapshots.names(paths, "web") == (["a", "before"] if kept else ["a"])
    if kept:
        assert of(paths, "before") == ("two", "two")
        assert snapshots.load(paths, "web", "before") == KEPT
        restoring.restore(paths, "web", "a", kept, 0)  # the answer got lost
        assert of(paths, "before") == ("two", "two")
    assert snapshots.leftovers(paths) == []
    assert not paths.container("web").restoring.exists()


def test_a_container_that_had_never_run_has_no_record_of_a_base_again(paths: Paths) -> None:
    paths.snapshot("web", "a").base_record.unlink()
    restoring.restore(paths, "web", "a", None, 0)
    assert not paths.container("web").base_record.exists()


def test_a_container_that_runs_keeps_its_delta(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.host.lxc.monitor.runs", lambda *_: True)
    with pytest.raises(WrongState):
        restoring.restore(paths, "web", "a", KEPT, 0)
    assert has(paths) == ("two", "two")
    assert snapshots.names(paths, "web") == ["a"]
    assert snapshots.leftovers(paths) == []


@pytest.mark.parametrize("kept", [KEPT, None])
def test_a_delta_in_which_something_is_mounted_is_not_exchanged(
    kept: Snapshot | None, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mount would go with the former delta, which is removed if it is not kept."""
    place = os.path.realpath(paths.container("web").delta) + "/home"
    monkeypatch.setattr("lxcfleet.host.kernel.mounts.points", lambda: frozenset(("/", place)))
    with pytest.raises(HostError, match=f"something is mounted at {place}"):
        restoring.restore(paths, "web", "a", kept, 0)
    assert has(paths) == ("two", "two")
    assert snapshots.leftovers(paths) == []


def kill_at(monkeypatch: pytest.MonkeyPatch, where: str, *, after: bool) -> None:
    """End the process just before or after a step. Nothing that it would do then is done."""
    module, name = where.split(".")
    target: Any = {"tree": tree, "syscalls": syscalls, "os": os, "snapshots": snapshots}[module]
    real: Callable[..., Any] = getattr(target, name)

    def step(*arguments: Any, **more: Any) -> Any:
        if name == "write" and "restoring" not in str(arguments[0]):
            return real(*arguments, **more)
        if after:
            real(*arguments, **more)
        raise Killed

    monkeypatch.setattr(target, name, step)
    # Neither clean-ups nor what is left to do are done by a process that is gone.
    real_finish, calls = restoring.finish, []

    def finish(*arguments: Any) -> str:
        calls.append(1)
        if len(calls) > 1:
            raise Killed
        return real_finish(*arguments)

    monkeypatch.setattr(restoring, "finish", finish)
    monkeypatch.setattr(tree, "remove", lambda _: None)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("tree.write", KEPT), ("tree.write", None), ("syscalls.rename_new", KEPT), ("syscalls.exchange", KEPT),
        ("syscalls.exchange", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", [False, True])
def test_a_restoration_that_is_killed_anywhere_leaves_one_delta_whole_and_loses_none(
    where: str, after: bool, kept: Snapshot | None, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("lxcfleet.host.lxc.monitor.runs", lambda *_: False)
        kill_at(patched, where, after=after)
        with pytest.raises(Killed):
            restoring.restore(paths, "web", "a", kept, 0)
    exchanged = where == "syscalls.exchange" and after
    assert (paths.container("web").delta / "f").read_text() == ("one" if exchanged else "two")
    assert restoring.finish(paths, "web") == ("a" if exchanged else "")
    assert has(paths) == (("one", "one") if exchanged else ("two", "two"))
    assert snapshots.names(paths, "web") == (["a", "before"] if exchanged and kept else ["a"])
    assert of(paths, "a") == ("one", "one")
    if exchanged and kept:
        assert of(paths, "before") == ("two", "two")
    for container, directory in snapshots.leftovers(paths):
        snapshots.remove(paths, container, snapshots.set_aside(paths, container, directory))
    assert has(paths)[0] == ("one" if exchanged else "two")
    restoring.restore(paths, "web", "a", kept, 0)
    assert has(paths) == ("one", "one")
    assert snapshots.leftovers(paths) == []


def test_a_journal_that_makes_no_sense_stops_the_start_and_says_so(paths: Paths) -> None:
    paths.container("web").restoring.write_text("{")
    with pytest.raises(Broken, match="not known"):
        restoring.finish(paths, "web")


@pytest.mark.parametrize("name", ["", "A", "a/b", "..", ".a", "a.", "x" * 64, "a b", "é"])
def test_what_can_t_be_a_snapshot_s_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_snapshot(name)


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("6h", 21600), ("1d", 86400), ("0", 0)])
def test_the_time_between_snapshots(text: str, seconds: int) -> None:
    pause = Pause(MOST_SECONDS)
    assert pause.parse(text) == seconds
    assert pause.parse(pause.render(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "59s", "1", "-1h", "367d", "h"])
def test_what_is_no_time_between_snapshots_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Pause(MOST_SECONDS).parse(text)
    fields = Fields({"every": text or "x"}, "spec")
    Pause(MOST_SECONDS).read(fields, "every")
    with pytest.raises(InvalidInput):
        fields.finish("wrong")


def test_a_schedule_as_text_and_in_files() -> None:
    schedule = Schedule(21600, 3)
    assert SCHEDULE.parse("every=6h keep=3") == schedule
    assert SCHEDULE.render(schedule) == {"every": "6h", "keep": 3}
    fields = Fields({"snapshots": {"every": 0}}, "spec")
    assert SCHEDULE.read(fields, "snapshots") == Schedule()
    fields.finish("wrong")


def test_a_snapshot_is_made_while_another_takes_the_empty_directories_away(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots.remove(paths, "web", snapshots.retire(paths, "web", "a"))
    real, left = os.chmod, [paths.snapshots_of("web"), paths.snapshots]

    def chmod(directory: Path, mode: int, **more: Any) -> None:
        real(directory, mode, **more)
        if directory in left:
            left.remove(directory)
            directory.rmdir()

    monkeypatch.setattr(os, "chmod", chmod)
    snapshots.take(paths, "web", "b", 0)
    assert left == []
    assert snapshots.new(paths, "web", "b").delta.is_dir()


def test_the_size_of_a_copy_is_told_as_the_list_of_snapshots_has_it() -> None:
    """An empty one was 0.0 KiB where it was made, and 0 B in the list."""
    for size in (0, 1023, 1536, 200 << 10, 5 << 20, 3 << 40):
        assert copy_cost.in_words(size, shares=True) == f"{output.size(size)}, shared with the container"
