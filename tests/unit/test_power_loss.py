"""The host may lose its power at any moment: what must last is then as it was before, or as it was to become.

What a write does to the disk is recorded, and played back onto a copy up to each point. A file whose content was not forced
to disk before its rename is then empty, half there or whole: a file system may have done the rename first.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.containers import store
from lxcfleet.containers.container import Container
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.containers.supervision import boot
from lxcfleet.host.kernel import syscalls, tree
from lxcfleet.launcher.children import preparing
from lxcfleet.patch.fallen import Fallen
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec

from .network_parts import own_paths

NOBODY: Any = None
OLD = Spec("web", first_id=1879048192, created="2026-01-01T00:00:00Z")
NEW = Spec("web", first_id=1879048192, created="2026-01-01T00:00:00Z", pids=300)


@dataclass
class Move:
    """A rename, with the files that came with it, and those of them whose content was on disk before."""

    source: Path
    target: Path
    content: dict[str, bytes]
    durable: set[str]


@dataclass
class Trace:
    """The renames of one work, and the directories whose names were forced to disk, in order."""

    moves: list[Move] = field(default_factory=list)
    names_durable: list[Path] = field(default_factory=list)
    content_durable: list[Path] = field(default_factory=list)
    """Files whose content was forced to disk."""


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trace]:
    """Record what is done meanwhile."""
    trace, synced = Trace(), dict[Path, bytes]()
    fsync, rename, rename_new = os.fsync, os.rename, syscalls.rename_new

    def note_sync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)
        if path.is_dir():
            trace.names_durable.append(path)
        else:
            synced[path] = path.read_bytes()
            trace.content_durable.append(path)

    def note(source: Path, target: Path) -> None:
        files = [path for path in (source.rglob("*") if source.is_dir() else [source]) if path.is_file()]
        content = {str(path.relative_to(source)): path.read_bytes() for path in files}
        durable = {name for name, data in content.items() if synced.get(source / name) == data}
        trace.moves.append(Move(source, target, content, durable))

    def move(source: Any, target: Any, **where: Any) -> None:
        note(Path(source), Path(target))
        rename(source, target, **where)

    def move_new(source: Path, target: Path) -> None:
        note(source, target)
        rename_new(source, target)

    with monkeypatch.context() as context:
        context.setattr(os, "fsync", note_sync)
        context.setattr(os, "rename", move)
        context.setattr(syscalls, "rename_new", move_new)
        yield trace


def after_each_loss(before: Path, top: Path, trace: Trace) -> Iterator[None]:
    """Have below ``top``, which was as ``before`` at first, what may be there after a loss of power: one case at a time."""
    for count in range(len(trace.moves) + 1):
        for share in (0.0, 0.5, 1.0):
            shutil.rmtree(top)
            shutil.copytree(before, top)
            for move in trace.moves[:count]:
                for name, data in move.content.items():
                    file = move.target / name if name != "." else move.target
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_bytes(data if name in move.durable else data[: int(len(data) * share)])
            yield


def check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[], None], load: Callable[[], object], *allowed: object
) -> Trace:
    """Do a work, and check that after a loss of power at any point what is loaded is one of ``allowed``."""
    top, before = tmp_path / "fleet", tmp_path / "before"
    shutil.copytree(top, before)
    with recorded(monkeypatch) as trace:
        work()
    assert trace.moves
    for _ in after_each_loss(before, top, trace):
        assert load() in allowed
    return trace


def test_a_replaced_file_is_old_or_new_and_new_for_good_after_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "fleet/file"
    file.parent.mkdir()
    file.write_text("old")
    trace = check(tmp_path, monkeypatch, lambda: tree.write(file, "new", sync=True), file.read_text, "old", "new")
    assert trace.names_durable == [file.parent]


def test_this_would_find_a_write_that_is_not_forced_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "fleet/file"
    file.parent.mkdir()
    file.write_text("old")
    with pytest.raises(AssertionError):
        check(tmp_path, monkeypatch, lambda: tree.write(file, "new"), file.read_text, "old", "new")


def test_a_changed_spec_is_the_old_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = own_paths(tmp_path / "fleet")
    own = paths.container("web")
    own.directory.mkdir()
    own.spec.write_text(store.render(OLD))
    specs = Specs(paths, NOBODY, NOBODY, NOBODY, Bus(), 1024)
    cast(Any, specs).config = lambda *_: ""
    container = Container("web", OLD)
    check(tmp_path, monkeypatch, lambda: specs.write(container, NEW), lambda: store.load(paths, "web"), OLD, NEW)


def test_specs_that_change_together_are_each_the_old_or_the_new_one_and_new_for_good_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = own_paths(tmp_path / "fleet")
    containers = [Container(name, OLD) for name in ("web", "db")]
    for container in containers:
        paths.container(container.name).directory.mkdir()
        paths.container(container.name).spec.write_text(store.render(OLD))
    specs = Specs(paths, NOBODY, NOBODY, NOBODY, Bus(), 1024)
    cast(Any, specs).config = lambda *_: ""

    async def change() -> None:
        await specs.stage([(container, NEW, True) for container in containers])
        for container in containers:
            specs.write(container, NEW)
        await specs.have_on_disk(containers)

    def load() -> object:
        return [cast(Spec, store.load(paths, container.name)).pids for container in containers]

    old, new = OLD.pids, NEW.pids
    trace = check(tmp_path, monkeypatch, lambda: asyncio.run(change()), load, [old, old], [new, old], [new, new])
    assert {*trace.names_durable} == {paths.container(container.name).directory for container in containers}


def test_specs_that_were_put_back_are_the_former_ones_for_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = own_paths(tmp_path / "fleet")
    old = {name: replace(OLD, name=name) for name in ("web", "db")}
    containers = [Container(name, spec) for name, spec in old.items()]
    for name, spec in old.items():
        paths.container(name).directory.mkdir()
        paths.container(name).spec.write_text(store.render(spec))
    specs = Specs(paths, NOBODY, NOBODY, NOBODY, Bus(), 1024)
    cast(Any, specs).config = lambda *_: ""

    async def put_back() -> None:
        for container in containers:
            specs.put_back(container, old[container.name])
        await specs.have_put_back(containers)

    for container in containers:
        specs.write(container, replace(NEW, name=container.name))
    with recorded(monkeypatch) as trace:
        asyncio.run(put_back())
    own = [paths.container(container.name) for container in containers]
    assert [store.load(paths, name) for name in old] == [*old.values()]
    assert {*trace.names_durable} == {each.directory for each in own}
    assert {*trace.content_durable} >= {each.spec for each in own}


def test_a_new_container_is_there_with_its_spec_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = own_paths(tmp_path / "fleet")
    item: Any = {"first_id": None, "mount": False, "files": {"config": "x\n", "lxcfleet.yaml": store.render(OLD)}}
    check(
        tmp_path, monkeypatch, lambda: preparing._make(paths, "web", item), lambda: store.load(paths, "web"), None, OLD
    )


def test_the_record_of_what_runs_is_the_old_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = own_paths(tmp_path / "fleet")
    old, new = boot.BootRecord("b", ("a",)), boot.BootRecord("b", ("a", "b"), ("c",))
    tree.write(paths.running_record, old.render())
    keeper = boot.BootStarts(paths, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY, NOBODY)
    load = lambda: boot.parse(paths.running_record.read_text())  # noqa: E731
    check(tmp_path, monkeypatch, lambda: keeper._save(new), load, old, new)


def test_a_note_of_a_fall_is_there_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = own_paths(tmp_path / "fleet")
    paths.container("web").directory.mkdir()
    fallen, container = Fallen(paths), Container("web", OLD)
    file = fallen._file("web")

    def load() -> object:
        return json.loads(file.read_text())["why"] if file.exists() else None

    check(tmp_path, monkeypatch, lambda: fallen.note(container, "why", "2026-01-01T00:00:00Z"), load, None, "why")
