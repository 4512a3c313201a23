"""What is done for one container does not grow with the number of the others: counted, as times would tell nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.capacity import ids
from lxcfleet.capacity.ids import IdPool
from lxcfleet.containers.container import Container
from lxcfleet.containers.secrets.keeper import Secrets
from lxcfleet.errors import HostError
from lxcfleet.host.net import uplink
from lxcfleet.network.context import Context
from lxcfleet.network.draining import Draining
from lxcfleet.network.fleet import FleetNetwork
from lxcfleet.network.membership import Membership
from lxcfleet.network.publishing import Publishing
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.ports import parse_publication
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading.terms import RANGE_SIZE, NetworkMode
from lxcfleet.spec.selection import natural_key

from .network_parts import context_of, own_paths, registry_of, run
from .one_container import OneContainer

MANY = 1000
NOBODY: Any = None
ADDRESS = IPv4Interface("10.0.0.1/8")


class Counted:
    """A function, and how often it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self._function(*arguments)


class Looked(Container):
    """Counts the looks at specs."""

    looks = 0

    @property
    def spec(self) -> Spec | None:
        Looked.looks += 1
        return self._looked

    @spec.setter
    def spec(self, spec: Spec | None) -> None:
        self._looked = spec


def listed(*_: object) -> list[str]:
    """In the place of what lists a directory."""
    raise AssertionError("all that is there is listed")


def many(tmp_path: Path) -> Any:
    Looked.looks = 0
    return registry_of(own_paths(tmp_path), *(Looked(f"c{number}", Spec(f"c{number}")) for number in range(MANY)))


def test_the_order_of_all_is_kept_and_not_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = many(tmp_path)
    assert [each.name for each in some] == [f"c{number}" for number in range(MANY)]
    key = Counted(natural_key)
    monkeypatch.setattr("lxcfleet.containers.registry.natural_key", key)
    reading = iter(some)
    next(reading)
    some.forget("c500")
    some.forget("nobody")
    some.add(Container("c7", Spec("c7", labels={"new": "yes"})))  # in the place of the other one
    some.add(Container("c500a", Spec("c500a")))
    assert key.calls < 60
    assert [each.name for each in some] == [*(f"c{number}" for number in range(MANY) if number != 500), "c500a"]
    assert next(each for each in some if each.name == "c7").labels == {"new": "yes"}
    assert sum(1 for _ in reading) == MANY - 1  # who reads through all meanwhile misses none


def test_a_range_is_given_back_without_a_look_at_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    first = RANGE_SIZE * 100
    line = f"root:{first}:{RANGE_SIZE * 2 * MANY}\n"
    pool = IdPool(line, line, own=[first + RANGE_SIZE * number for number in range(MANY)])
    counted = Counted(ids._range)
    monkeypatch.setattr(ids, "_range", counted)
    pool.give_back(first + RANGE_SIZE * 7)
    assert counted.calls < 10
    assert pool.take() == first + RANGE_SIZE * 7


def test_what_is_left_of_one_is_looked_for_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = OneContainer(tmp_path)
    monkeypatch.setattr("lxcfleet.host.lxc.monitor.runs", lambda *_: False)
    monkeypatch.setattr("lxcfleet.host.process.cgroup.usual", lambda _: ())
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, listed)
    for number in range(8):
        one.own.directory.mkdir(exist_ok=True)
        (one.own.directory / "file").touch()
        one.lifecycle.retire("web")
        assert len(one.lifecycle._leftovers("web")) == number + 1
    one.own.directory.mkdir()
    with pytest.raises(HostError, match="former containers of that name"):
        one.lifecycle.retire("web")
    assert one.own.directory.is_dir()


def test_a_container_in_which_something_is_mounted_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = OneContainer(tmp_path)
    monkeypatch.setattr("lxcfleet.host.lxc.monitor.runs", lambda *_: False)
    monkeypatch.setattr("lxcfleet.host.kernel.mounts.points", lambda: frozenset((f"{os.path.realpath(one.own.delta)}/home",)))
    with pytest.raises(HostError, match="something is mounted at"):
        one.lifecycle.retire("web")
    assert one.own.directory.is_dir()


def test_nobody_looks_for_secrets_in_a_fleet_without_them(tmp_path: Path) -> None:
    some = many(tmp_path)
    secrets = Secrets(own_paths(tmp_path), some, NOBODY, Bus(), {}, dict)
    asyncio.run(secrets.forget("c1"))
    assert Looked.looks == 0


def group(tmp_path: Path) -> tuple[Context, list[Container], Membership]:
    """Many containers that run behind one port of the host."""
    ports = (parse_publication("80:8080"),)
    members: list[Container] = [
        Looked(f"c{number}", Spec(f"c{number}", network=NetworkMode.BRIDGE, publish=ports, address=ADDRESS + number))
        for number in range(MANY)
    ]
    context = context_of(own_paths(tmp_path), *members)
    membership = Membership(context.registry)
    for each in members:
        run(each)
        membership.find(each.name)
    Looked.looks = 0
    return context, members, membership


def test_one_that_leaves_a_group_looks_for_one_that_stays(tmp_path: Path) -> None:
    context, members, membership = group(tmp_path)
    leaving = Draining(context, NOBODY, membership, NOBODY, NOBODY)
    for each in members[:5]:
        assert asyncio.run(leaving._stay(each, 5.0)) is False
    assert Looked.looks < 100


def test_of_many_that_leave_a_port_at_once_one_has_the_rules_follow_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, members, membership = group(tmp_path)
    context.up = True
    publishing = Publishing(context, membership)
    wanted = Counted(publishing.wanted)
    monkeypatch.setattr(publishing, "wanted", wanted)

    async def leave(name: str) -> None:
        membership.lose(name)
        await publishing.apply()
        assert publishing._applied is not None
        assert len(publishing._applied[0].ipv4) == MANY // 2

    async def all_leave() -> None:
        await asyncio.gather(*(leave(each.name) for each in members[: MANY // 2]))

    asyncio.run(all_leave())
    assert wanted.calls <= 4


def test_networks_that_others_need_stay_without_a_look_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = many(tmp_path)
    net, vlans = tmp_path / "net", tmp_path / "vlans"
    (net / "lfother0").mkdir(parents=True)
    monkeypatch.setattr(uplink, "_NET", net)
    monkeypatch.setattr(uplink, "_VLANS", vlans)
    monkeypatch.setattr(Path, "glob", listed)
    settings = NetworkSettings(bridge="lfother0")
    network = FleetNetwork(own_paths(tmp_path), settings, some, NOBODY, Bus(), Tasks())
    asyncio.run(network.release())
    assert Looked.looks < MANY // 10
