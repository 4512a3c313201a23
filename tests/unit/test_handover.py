"""How members of a group leave their places to others: the decision, and a restart of all of them."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.network import draining
from lxcfleet.network.draining import Draining
from lxcfleet.network.handover import MemberPlace, meets, place
from lxcfleet.spec.container.ports import parse_publication
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import NetworkMode
from lxcfleet.spec.states import Action

from .network_parts import Names, context_of, own_paths, run


def spec(number: int, *ports: str, **labels: str) -> Spec:
    return Spec(
        f"c{number}", labels=labels, network=NetworkMode.BRIDGE, publish=tuple(map(parse_publication, ports)),
        address=IPv4Interface(f"10.0.0.{number}/24"),
    )  # fmt: skip


ONE, TWO, THREE = spec(1, "80:80", role="web", index="1"), spec(2, "80:80", role="web"), spec(3, role="web")
BOTH = spec(4, "80:80", "81:81", role="web")


@pytest.mark.parametrize(
    ("own", "members", "coming", "found"),
    [
        (ONE, [TWO], [], MemberPlace.SHARED),
        (ONE, [THREE], [], MemberPlace.ALONE),  # that one is of the group, and not behind the port
        (ONE, [THREE], [TWO], MemberPlace.AWAITED),
        (ONE, [], [], MemberPlace.ALONE),
        (BOTH, [TWO], [], MemberPlace.ALONE),  # one of its two ports has nobody else
        (BOTH, [TWO], [ONE], MemberPlace.ALONE),
        (BOTH, [TWO], [spec(5, "81:81", role="web")], MemberPlace.AWAITED),
        (THREE, [ONE], [], MemberPlace.SHARED),
        (THREE, [spec(4, role="db")], [], MemberPlace.ALONE),
        (THREE, [], [ONE], MemberPlace.AWAITED),
        (spec(5), [], [ONE], MemberPlace.SHARED),  # it has neither ports nor groups, and its name is its own
    ],
)
def test_the_place_of_a_member_that_leaves(own: Spec, members: list[Spec], coming: list[Spec], found: MemberPlace) -> None:
    assert place(own, members, coming) is found


def test_containers_meet_behind_a_port_or_in_a_group() -> None:
    assert meets(ONE, THREE)
    assert meets(spec(6, "80:80", a="b"), ONE)
    assert not meets(spec(6, "81:80", a="b"), ONE)


class Group:
    """Members of one group that run, with what withdraws them."""

    def __init__(self, directory: Path, count: int) -> None:
        self.all = [Container(f"c{number}", spec(number, role="web")) for number in range(1, count + 1)]
        context = context_of(own_paths(directory), *self.all)
        names = Names(context)
        self.membership, self.discovery = names.membership, names.discovery
        self.draining = Draining(context, cast(Any, None), names.membership, names.discovery, cast(Any, None))
        for container in self.all:
            self.start(container)

    def start(self, container: Container) -> None:
        """Have it run and be found."""
        run(container)
        cast(SimpleNamespace, container.running).age = 0.0
        self.discovery.publish(container)

    def members(self) -> int:
        """How many stand for the group."""
        return len(self.membership.members())

    async def restart(self, container: Container, drain: float, start: float) -> None:
        """Restart it as the reconciler does; ``start``: seconds from its stop until it is found again."""
        container.busy = Action.RESTART
        await self.draining.leave(container, drain)
        assert container.running is not None
        container.running.gone.set()
        container.running = None
        self.discovery.ended(container.name)
        await asyncio.sleep(start)
        self.start(container)
        container.busy = None


def test_a_restart_of_all_leaves_somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "LOOK_SECONDS", 0.001)

    async def play() -> None:
        group = Group(tmp_path, 3)
        fewest = group.members()
        work = asyncio.gather(*(group.restart(container, 0.02, 0.05) for container in group.all))
        while not work.done():
            await asyncio.sleep(0)
            fewest = min(fewest, group.members())
        await work
        assert (fewest, group.members()) == (1, 3)

    asyncio.run(play())


def test_the_last_of_a_stop_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "AWAITED_SECONDS", 1000.0)

    async def play() -> None:
        group = Group(tmp_path, 2)
        for container in group.all:
            container.busy = Action.STOP
        await asyncio.wait_for(asyncio.gather(*(group.draining.leave(each, 0.01) for each in group.all)), 60)
        assert group.members() == 0

    asyncio.run(play())


def test_one_that_does_not_come_back_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(draining, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(draining, "AWAITED_SECONDS", 0.02)

    async def play() -> None:
        group = Group(tmp_path, 2)
        one, two = group.all
        for container in group.all:
            container.busy = Action.RESTART
        await asyncio.wait_for(asyncio.gather(*(group.draining.leave(each, 0.01) for each in (one, two))), 60)
        assert group.members() == 0  # its time is up
        group.start(two)
        one.running, one.busy = None, None  # its start failed
        await asyncio.wait_for(group.draining.leave(two, 0.01), 60)

    asyncio.run(play())
    assert "none like it was back after 0.03 s" in caplog.text
    assert len(caplog.records) == 1
