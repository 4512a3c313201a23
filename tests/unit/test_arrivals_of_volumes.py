"""How volumes that came with a container get their names."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers.measuring.delta_sizes import Looks
from lxcfleet.daemon.uses.volumes import Volumes
from lxcfleet.data import arrivals, volumes
from lxcfleet.errors import AlreadyExists, Broken, InvalidInput
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")
    found.container("web").directory.mkdir(parents=True)
    found.volumes.mkdir(parents=True)
    return found


def come(paths: Paths, *names: str) -> dict[str, str]:
    """A container that was made when its volumes had no names yet."""
    beside = {arrivals.directory(name, "0f"): name for name in names}
    for directory in beside:
        (paths.volumes / directory).mkdir()
    paths.container("web").arrivals.write_text(arrivals.note(beside))
    return beside


def test_they_get_them_once_the_container_has_its_own_wherever_that_was_broken_off(paths: Paths) -> None:
    own = paths.container("web")
    assert arrivals.finish(paths, own) == []
    beside = come(paths, "data", "more")
    (paths.volumes / next(iter(beside))).rename(paths.volume("data").directory)  # as one that was killed between the two
    assert arrivals.finish(paths, own) == ["data", "more"]
    assert sorted(each.name for each in paths.volumes.iterdir()) == ["data", "more"]
    assert not own.arrivals.exists()
    assert arrivals.finish(paths, own) == []


def test_none_takes_the_place_of_another_one(paths: Paths) -> None:
    beside = come(paths, "data")
    arrivals.refuse_present(paths, "other")
    paths.volume("data").directory.mkdir()
    with pytest.raises(AlreadyExists, match="data"):
        arrivals.refuse_present(paths, "data")
    with pytest.raises(FileExistsError):
        arrivals.finish(paths, paths.container("web"))
    assert all((paths.volumes / each).is_dir() for each in beside)
    assert paths.container("web").arrivals.exists()


def test_one_that_can_not_have_its_name_keeps_no_other_one_from_its_own(paths: Paths) -> None:
    come(paths, "data", "more")
    paths.volume("data").directory.mkdir()
    with pytest.raises(FileExistsError):
        arrivals.finish(paths, paths.container("web"))
    assert paths.volume("more").directory.is_dir()
    assert paths.container("web").arrivals.exists()
    paths.volume("data").directory.rmdir()
    assert arrivals.finish(paths, paths.container("web")) == ["data", "more"]


def test_one_that_is_lost_is_told(paths: Paths) -> None:
    lost, _ = come(paths, "data", "more")
    (paths.volumes / lost).rmdir()
    for _ in range(2):
        with pytest.raises(Broken, match="data"):
            arrivals.finish(paths, paths.container("web"))
        assert paths.volume("more").directory.is_dir()
        assert paths.container("web").arrivals.exists()
    paths.volume("data").directory.mkdir()  # of a backup
    assert arrivals.finish(paths, paths.container("web")) == ["data", "more"]


@pytest.mark.parametrize("readable", [True, False])
def test_what_waits_for_its_name_is_not_cleaned_up(paths: Paths, readable: bool) -> None:
    beside = come(paths, "data")
    for left in (f"{Paths.NEW_PREFIX}old", f"{Paths.GONE_PREFIX}old.0f"):
        (paths.volumes / left).mkdir()
    note = paths.container("web").arrivals
    if not readable:
        note.write_text("{")

    async def remove(_: object, directory: str) -> dict[str, None]:
        tree.remove(paths.volumes / directory)
        return {"error": None}

    registry: Any = [SimpleNamespace(name="web"), SimpleNamespace(name="other")]
    room: Any = SimpleNamespace(reload=lambda: None)
    launcher: Any = SimpleNamespace(ask=remove)
    nobody: Any = None
    made = Volumes(paths, registry, room, launcher, nobody, Bus(), Looks(paths))
    asyncio.run(made.clean_up())
    assert {*volumes.leftovers(paths)} == ({*beside} if readable else {*beside, f"{Paths.NEW_PREFIX}old"})
    note.unlink()
    asyncio.run(made.clean_up())
    assert volumes.leftovers(paths) == []


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": "../b"}'])
def test_a_note_that_makes_no_sense_is_told(paths: Paths, text: str) -> None:
    paths.container("web").arrivals.write_text(text)
    with pytest.raises((Broken, InvalidInput)):
        arrivals.finish(paths, paths.container("web"))
