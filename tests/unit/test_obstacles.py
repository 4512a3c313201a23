"""What is in the place of a mount when a container starts."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from lxcfleet.base import obstacles
from lxcfleet.errors import WrongState
from lxcfleet.paths import ContainerPaths


@pytest.fixture
def own(tmp_path: Path) -> ContainerPaths:
    own = ContainerPaths(tmp_path / "web")
    for name in ("proc", "sys", "dev", "run", "srv"):
        (own.delta / name).mkdir(parents=True)
    own.config.write_text(
        "lxc.uts.name = web\nlxc.mount.entry = tmpfs tmp tmpfs rw 0 0\n"
        "lxc.mount.entry = /x srv/a/b none bind,create=dir 0 0\nlxc.mount.entry = /x dev/fuse none bind 0 0\n"
    )
    return own


def _try(own: ContainerPaths, *, run: bool = True) -> None:
    obstacles.refuse(own, own.config.read_text(), obstacles.mounted_at(own.delta), run=run)


def test_directories_and_what_is_not_there_are_no_obstacles(own: ContainerPaths) -> None:
    _try(own)


@pytest.mark.parametrize("place", ["proc", "sys", "dev", "run"])
def test_a_place_of_each_start_must_be_a_directory(own: ContainerPaths, place: str) -> None:
    (own.delta / place).rmdir()
    os.symlink("/srv", own.delta / place)
    with pytest.raises(WrongState, match=f"/{place} is no directory"):
        _try(own)
    assert own.delta.is_dir()


def test_without_a_run_to_be_mounted_it_may_be_anything(own: ContainerPaths) -> None:
    (own.delta / "run").rmdir()
    _try(own, run=False)
    with pytest.raises(WrongState, match="/run is not there"):
        _try(own)


@pytest.mark.parametrize("place", ["tmp", "srv/a", "srv/a/b"])
def test_what_would_keep_liblxc_waiting_is_no_place_for_a_mount(own: ContainerPaths, place: str) -> None:
    (own.delta / place).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(own.delta / place)
    with pytest.raises(WrongState, match=f"/{place} is neither a directory nor a file"):
        _try(own)


def test_a_socket_is_none_either(own: ContainerPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.delta)
    with socket.socket(socket.AF_UNIX) as there:
        there.bind("tmp")
        with pytest.raises(WrongState):
            _try(own)
