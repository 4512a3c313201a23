"""The host's room for containers: what it knows of the host stays true while the daemon runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.room import Room
from lxcfleet.errors import NoCapacity, Unsupported
from lxcfleet.host.facts import limits
from lxcfleet.host.facts.features import Features, Probe
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import RANGE_SIZE, Init

from .network_parts import own_paths

NOBODY = cast(Any, None)
FIRST = 1 << 20


class Files:
    """/etc/subuid and /etc/subgid, as an administrator changes them while the daemon runs."""

    def __init__(self) -> None:
        self.line = ""

    def __call__(self) -> tuple[str, str, str, str]:
        return self.line, self.line, "", ""


class Host:
    """A host without overlays until somebody mends it. Its features are remembered, as the daemon remembers them."""

    def __init__(self) -> None:
        self.level = "fail"
        self.tried: Features | None = None

    async def features(self) -> Features:
        self.tried = self.tried or Features((Probe("overlay", self.level, "overlays do not work"),))
        return self.tried

    def forget(self) -> None:
        self.tried = None


class NoNetwork:
    """A network that finds nothing amiss."""

    def findings(self, count: int) -> list[Finding]:
        return []

    async def firewall_findings(self) -> list[Finding]:
        return []


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
def host() -> Host:
    return Host()


@pytest.fixture
def room(tmp_path: Path, files: Files, host: Host) -> Room:
    paths = own_paths(tmp_path)
    paths.lxc.mkdir(parents=True, exist_ok=True)
    return Room(paths, cast(Registry, NoContainers()), NOBODY, cast(Any, NoNetwork()), cast(Any, host))


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


def test_a_host_that_was_mended_after_a_refusal_is_looked_at_anew(room: Room, files: Files, host: Host) -> None:
    files.line = f"root:{FIRST}:{RANGE_SIZE}\n"
    like = Spec("x", first_id=0)
    with pytest.raises(Unsupported, match="can't run"):
        asyncio.run(room.check_new(1, like))
    host.level = "ok"
    asyncio.run(room.check_new(1, like))


def test_doctor_tells_what_the_host_has_now(room: Room, host: Host) -> None:
    def level() -> str:
        return next(f["level"] for f in asyncio.run(room.doctor(1, Init.SYSTEM))["findings"] if f["check"] == "overlay")

    assert level() == "fail"
    host.level = "ok"
    assert level() == "ok"
