"""The host's room for containers: what it knows of the host stays true while the daemon runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.containers.registry import Registry
from lxcfleet.containers.room import Room
from lxcfleet.errors import NoCapacity
from lxcfleet.host.facts import limits
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import RANGE_SIZE

from .network_parts import own_paths

NOBODY = cast(Any, None)
FIRST = 1 << 20


class Files:
    """/etc/subuid and /etc/subgid, as an administrator changes them while the daemon runs."""

    def __init__(self) -> None:
        self.line = ""

    def __call__(self) -> tuple[str, str, str, str]:
        return self.line, self.line, "", ""


class NoContainers:
    """A registry without a container."""

    def ids(self) -> list[int]:
        return []

    def __iter__(self) -> Any:
        return iter(())


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    found = Files()
    monkeypatch.setattr(limits, "id_files", found)
    return found


@pytest.fixture
def room(tmp_path: Path, files: Files) -> Room:
    return Room(own_paths(tmp_path), cast(Registry, NoContainers()), NOBODY, NOBODY, NOBODY)


def test_ids_that_an_administrator_gave_root_meanwhile_are_used(room: Room, files: Files) -> None:
    like = Spec("x", first_id=0)
    with pytest.raises(NoCapacity):
        room.take(["web1"], like)
    files.line = f"root:{FIRST}:{2 * RANGE_SIZE}\n"
    assert [spec.first_id for spec in room.take(["web1", "web2"], like)] == [FIRST, FIRST + RANGE_SIZE]


def test_ids_that_an_administrator_took_from_root_are_not_given_to_a_volume(room: Room, files: Files) -> None:
    files.line = f"root:{FIRST}:{RANGE_SIZE}\n"
    with room.ids() as take:
        assert take() == FIRST
    files.line = ""
    with room.ids() as take, pytest.raises(NoCapacity):
        take()
