"""Containers that plain lxc-start began get the same network as others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.net import bridge_port, dnsmasq, nft_watch
from lxcfleet.host.net.nft_watch import TableWatch
from lxcfleet.launcher.operations import DISCONNECT, JOIN, NETWORK, PUBLISH, RULES
from lxcfleet.network import addressing, inspection
from lxcfleet.network.arrivals import TRIES
from lxcfleet.network.context import Context
from lxcfleet.network.events import NetworkRepaired
from lxcfleet.network.fleet import FleetNetwork
from lxcfleet.network.name_server import NameServer
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.ports import parse_publication
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading.terms import Addresses, NetworkMode

from .network_parts import FakeLauncher, own_paths, registry_of, run
from .nft_messages import watched_netlink

GONE = HostError("nft failed", why="Error: No such file or directory")


class World:
    """A fleet of web1 and web2 on a bridge that is up. ``ports``: what is set of each of them."""

    def __init__(self, directory: Path) -> None:
        self.launcher = FakeLauncher(lambda operation, _: {"networks": [], "ipv6": False} if operation == "routes" else {})
        self.paths = own_paths(directory)
        self.ports: dict[str, list[str]] = {}
        self.web1, self.web2 = (self._container(number) for number in (1, 2))
        registry = registry_of(self.paths, self.web1, self.web2)
        settings = NetworkSettings(dns=False)
        self.tasks, self.bus = Tasks(), Bus()
        self.network = FleetNetwork(self.paths, settings, registry, cast(Any, self.launcher), self.bus, self.tasks)

    def _container(self, number: int) -> Container:
        spec = Spec(
            f"web{number}",
            network=NetworkMode.BRIDGE,
            labels={"role": "web"},
            address=IPv4Interface(f"10.201.0.{number + 1}/16"),
            publish=(parse_publication("80:8080"),),
            isolated=True,
        )
        return Container(spec.name, spec)

    def switches(self, container: Container) -> list[str]:
        """The switches of its port that are set."""
        assert container.spec is not None
        return self.ports.get(container.spec.port, [])

    def set_up(self, interface: str, wanted: bridge_port.Switches, **_: object) -> None:
        """In the place of bridge_port.set_up."""
        words = (("hairpin", wanted.hairpin), ("isolated", wanted.isolated))
        self.ports[interface] = [word for word, is_on in words if is_on]

    def rules(self) -> str:
        """All rules that the packet filter was given."""
        return "\n".join(argument["rules"] for _, argument in self.launcher.asked if "rules" in argument)


async def turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]:
    monkeypatch.setattr(Context, "bridge_there", True)
    monkeypatch.setattr(addressing, "Claim", lambda *_: contextlib.ExitStack())
    monkeypatch.setattr(inspection, "faults", lambda *_: [])
    monkeypatch.setattr(inspection.Switchboard, "switch_on", lambda *_, **__: [])
    monkeypatch.setattr("lxcfleet.network.name_server.stop", lambda paths: None)
    monkeypatch.setattr("lxcfleet.network.bridge.TableWatch", lambda *_: None)

    def run_it(story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            world = World(tmp_path)
            monkeypatch.setattr(bridge_port, "set_up", world.set_up)
            await world.network.settle()
            await story(world)

        asyncio.run(whole())

    return run_it


Play = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


def test_a_container_is_admitted_and_published_as_soon_as_the_daemon_sees_it(play: Play) -> None:
    async def story(world: World) -> None:
        run(world.web1)
        world.network.began(world.web1)
        await turns()
        assert world.switches(world.web1) == ["hairpin", "isolated"]
        assert world.switches(world.web2) == []
        assert "10.201.0.2" in world.rules()
        world.launcher.asked.clear()
        run(world.web2)
        world.network.began(world.web2)
        await turns()
        assert "elements = { 0 : 10.201.0.2, 1 : 10.201.0.3 };" in world.rules()

    play(story)


def test_a_repair_is_told_once_however_many_looks_see_the_fault(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at every few seconds may come while the rules are repaired that somebody flushed."""
    gone: list[Callable[[], None]] = []
    monkeypatch.setattr("lxcfleet.network.bridge.TableWatch", lambda _, told, *__: gone.append(told))
    told: list[NetworkRepaired] = []

    async def story(world: World) -> None:
        world.bus.subscribe("test", NetworkRepaired, told.append)
        run(world.web1)
        world.network.began(world.web1)
        await turns()
        await world.network.check()  # now the rules are there
        async with world.network._context.lock:  # all looks begin while something else is done to the bridge
            gone[0]()
            looks = [asyncio.ensure_future(world.network.check()) for _ in range(2)]
            await turns()
        await asyncio.gather(*looks)
        await turns()
        assert [each.faults for each in told] == [("another program changed the packet filter's rules",)]

    play(story)


def go_away(world: World) -> None:
    """Both containers are destroyed."""
    for container in (world.web1, world.web2):
        container.running = None
        world.network._context.registry.forget(container.name)
        world.network.forget(container.name)


@pytest.mark.parametrize("moment", ["missing", "behind", "lock"])
def test_a_network_that_goes_while_it_is_looked_at_is_not_made_again(
    play: Play, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """The last container is destroyed then. The look saw no bridge, and made one for nobody: it stayed, with a name server,
    by which the next container's daemon took the range for another fleet's, chose a second one, and gave no names."""
    told: list[NetworkRepaired] = []

    async def story(world: World) -> None:
        world.bus.subscribe("test", NetworkRepaired, told.append)
        run(world.web1)
        world.network.began(world.web1)
        await turns()
        bridge, context = world.network._bridge, world.network._context

        async def destroy_all() -> None:
            go_away(world)
            monkeypatch.setattr(Context, "bridge_there", False)
            await bridge.release()

        async def behind(*_: object) -> None:
            await destroy_all()

        async def missing() -> list[str]:
            await destroy_all()
            return []

        world.launcher.asked.clear()
        if moment == "behind":
            monkeypatch.setattr("lxcfleet.network.bridge._behind", behind)
        elif moment == "missing":
            monkeypatch.setattr(bridge, "_faults", missing)
        if moment == "lock":
            context.up = False
            async with context.lock:
                looks = asyncio.ensure_future(world.network.check())
                await turns()
                go_away(world)
            await looks
        else:
            await world.network.check()
        await turns()
        assert world.launcher.operations() == ([] if moment == "lock" else [DISCONNECT])
        assert told == []

    play(story)


def test_a_bridge_is_made_for_the_range_that_containers_have(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """The range may be settled anew while its bridge waits to be made."""

    async def story(world: World) -> None:
        addressing = world.network._addressing
        assert world.web1.spec is not None
        found, asked = addressing.subnet, [0]

        async def subnet() -> Any:
            range_, asked[0] = await found(), asked[0] + 1
            if asked[0] == 2:  # for the address of the bridge, and for the bridge itself
                addressing.forget()
            return range_

        monkeypatch.setattr(addressing, "subnet", subnet)
        await world.network.connect(world.web1.spec)
        assert world.launcher.operations().count(NETWORK) == 1
        assert addressing.settled

    play(story)


@pytest.mark.parametrize("ipv6", [True, False])
def test_a_port_for_ipv6_alone_is_refused_where_no_container_has_such_an_address(play: Play, ipv6: bool) -> None:
    """The host had it off, and the settings say nothing of it: the port was published, and led nowhere for ever."""

    async def story(world: World) -> None:
        def routes(operation: str, _: Any) -> dict[str, Any]:
            return {"networks": [], "ipv6": ipv6} if operation == "routes" else {}

        world.network._addressing.forget()
        world.launcher._answers = routes
        wanted = [parse_publication("80:8080"), parse_publication("[::]:81:8080")]
        if ipv6:
            await world.network._addressing.check_published(wanted)
            return
        with pytest.raises(InvalidInput, match="81:8080/tcp can't be published") as caught:
            await world.network._addressing.check_published(wanted)
        assert "as the host had IPv6 off" in caught.value.why

    play(story)


def test_rules_that_are_flushed_while_they_are_loaded_are_loaded_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody flushes them a second time, so nothing else would tell that they are gone."""
    told: list[Callable[[], None]] = []
    monkeypatch.setattr("lxcfleet.network.bridge.TableWatch", lambda _, gone, *__: told.append(gone))

    async def story(world: World) -> None:
        run(world.web1)
        world.network.began(world.web1)
        await turns()
        flushes = [True, True]

        def flushed(operation: str, argument: Any) -> dict[str, Any]:
            if operation == NETWORK and flushes:
                flushes.pop()
                told[0]()
            return {}

        world.launcher.asked.clear()
        monkeypatch.setattr(world.launcher, "_answers", flushed)
        told[0]()
        async with asyncio.timeout(60):
            while world.launcher.operations().count(NETWORK) < 3:
                await asyncio.sleep(0.01)  # threads have a share in a repair
        await world.network.check()
        assert world.launcher.operations().count(NETWORK) == 3

    play(story)


@pytest.mark.parametrize("flushes", [1, TRIES - 1, TRIES])
def test_a_start_goes_on_though_the_rules_are_flushed_just_before_it_is_admitted(
    play: Play, monkeypatch: pytest.MonkeyPatch, flushes: int
) -> None:
    """Another tool flushes them in the milliseconds after they were looked at, and the watch has not heard of it: nft says
    so. Before, the start failed. Who flushes them for ever is told."""

    async def story(world: World) -> None:
        assert world.web1.spec is not None
        await world.network.connect(world.web1.spec)
        added, fleet = [], world.network

        def flushed(operation: str, argument: Any) -> dict[str, Any]:
            if operation == RULES:
                added.append(argument["rules"])
                return {"error": GONE.body()} if len(added) <= flushes else {}
            return {}

        monkeypatch.setattr(world.launcher, "_answers", flushed)
        assume = fleet._admission.assume

        def forget(admitted: Any) -> None:
            assume({} if len(added) < flushes else admitted)

        monkeypatch.setattr(fleet._admission, "assume", forget)
        fleet._admission._admitted.clear()
        world.launcher.asked.clear()
        if flushes == TRIES:
            with pytest.raises(HostError, match="nft"):
                await fleet.connect(world.web1.spec)
        else:
            await fleet.connect(world.web1.spec)
            assert fleet._admission.knows(world.web1.spec)
        assert len(added) == flushes
        assert world.launcher.operations().count(NETWORK) == min(flushes, TRIES - 1)

    play(story)


@pytest.mark.parametrize(("found", "loads"), [([], 1), ([False], 2)])
def test_messages_that_a_load_of_rules_loses_do_not_repeat_it(
    play: Play, monkeypatch: pytest.MonkeyPatch, found: list[bool], loads: int
) -> None:
    """From 420 containers on, each load overflowed the watch's buffer. It is repeated only if the table is not there, or
    somebody else may have changed it.

    ``found``: whether it is, as long as that is not as it should be."""
    netlink = watched_netlink(monkeypatch)
    monkeypatch.setattr("lxcfleet.network.bridge.TableWatch", TableWatch)
    asked: list[bool] = []

    def is_there(_: str) -> bool:
        asked.append(found.pop() if found else True)
        return asked[-1]

    monkeypatch.setattr(nft_watch, "is_there", is_there)

    async def story(world: World) -> None:
        def load(operation: str, _: Any) -> dict[str, Any]:
            if operation == NETWORK:
                netlink.lose()
            return {"networks": [], "ipv6": False} if operation == "routes" else {}

        def generation() -> int:
            return sum(each in (NETWORK, PUBLISH, RULES) for each in world.launcher.operations())

        monkeypatch.setattr(nft_watch, "generation", generation)
        monkeypatch.setattr(world.launcher, "_answers", load)
        run(world.web1)
        world.network.began(world.web1)
        async with asyncio.timeout(60):
            while netlink.failed < loads:
                await asyncio.sleep(0.01)
        for _ in range(20):  # a load that was repeated has begun by now, as no thread has a share in it
            await turns()
            await world.network.check()
        assert world.launcher.operations().count(NETWORK) == loads
        assert len(asked) == loads

    play(story)


@pytest.mark.parametrize("dhcp", [False, True])
def test_a_name_server_that_was_installed_later_has_its_rules(
    play: Play, monkeypatch: pytest.MonkeyPatch, dhcp: bool
) -> None:
    """The rules that keep others from what it asks name its user, which comes with the package."""
    users: list[int | None] = [None]
    monkeypatch.setattr(dnsmasq, "user", lambda: users[-1])
    for step in ("missing", "start", "tidy"):
        monkeypatch.setattr(NameServer, step, lambda _: [])
    monkeypatch.setattr(NameServer, "current", True)

    async def story(world: World) -> None:
        answers = {"routes": {"networks": [], "ipv6": False}, "bridge": {"address": "10.201.0.1"}}
        monkeypatch.setattr(world.launcher, "_answers", lambda operation, _: answers.get(operation, {}))
        world.network._context.settings = NetworkSettings(addresses=Addresses.DHCP if dhcp else Addresses.OWN)
        run(world.web1)
        await world.network.check()
        assert "th dport { 953, 954 }" not in world.rules()
        users.append(105)
        await world.network.check()
        assert "ip daddr 127.201.0.1 meta l4proto { tcp, udp } th dport { 953, 954 } meta skuid != 105 drop" in world.rules()
        world.launcher.asked.clear()
        await world.network.check()
        assert not {NETWORK, JOIN} & {*world.launcher.operations()}

    play(story)


def test_a_failed_arrival_is_repeated_at_the_next_check(play: Play) -> None:
    async def story(world: World) -> None:
        world.launcher.failure = HostError("no")
        run(world.web1)
        world.network.began(world.web1)
        await turns()
        assert world.switches(world.web1) == []
        world.launcher.failure = None
        await world.network.check()
        assert world.switches(world.web1) == ["hairpin", "isolated"]

    play(story)


def test_a_container_that_the_daemon_starts_is_published_by_that_start(play: Play) -> None:
    async def story(world: World) -> None:
        run(world.web1)
        world.web1.busy = "start"
        world.network.began(world.web1)
        await turns()
        assert world.switches(world.web1) == []

    play(story)


def test_a_container_that_could_not_be_stopped_stays_withdrawn(play: Play) -> None:
    async def story(world: World) -> None:
        await world.network.connect(cast(Spec, world.web1.spec))
        run(world.web1)
        world.network.publish(world.web1)
        await turns()
        await world.network.leave(world.web1, 0)
        world.launcher.asked.clear()
        await world.network.check()
        await turns()
        assert "10.201.0.2" not in world.rules()
        world.network.ended("web1")
        run(world.web1)  # once more, by plain lxc-start
        world.network.began(world.web1)
        await turns()
        assert "to 10.201.0.2 :" in world.rules()

    play(story)


def test_a_container_that_ends_is_withdrawn_whatever_is_done_to_it(play: Play) -> None:
    async def story(world: World) -> None:
        await world.network.connect(cast(Spec, world.web1.spec))
        run(world.web1)
        world.network.publish(world.web1)
        await turns()
        assert "to 10.201.0.2 :" in world.rules()
        world.web1.busy = "freeze"
        world.network.set_frozen(world.web1, True)
        world.web1.running = None
        world.network.ended("web1")
        world.network.look_if_frozen(world.web1)
        await turns()
        assert world.launcher.asked[-1][0] == "publish"
        assert "10.201.0.2" not in world.launcher.asked[-1][1]["rules"]

    play(story)
