"""Containers on a network of one of the host's interfaces: what may be asked for, and what the daemon does about it."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import Any, cast

import pytest

from lxcfleet.containers import lxc_config, store
from lxcfleet.containers.container import Container
from lxcfleet.containers.lxc_config import Platform
from lxcfleet.errors import Broken, HostError, InvalidInput, Unsupported, WrongState
from lxcfleet.host.net import dhcp, uplink
from lxcfleet.network.events import NetworkRepaired, UplinkGone
from lxcfleet.network.fleet import FleetNetwork
from lxcfleet.network.rules import lan
from lxcfleet.network.uplinks import Uplinks
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus, Event
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.health import HealthType
from lxcfleet.spec.container.ports import parse_publication
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.uplinks import UPLINK, Uplink, vlan_device
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said
from lxcfleet.spec.reading.terms import Affinity, NetworkMode

from .network_parts import FakeLauncher, context_of, own_paths, registry_of, run

FIXED = Uplink("eth0", 30, IPv4Interface("192.0.2.5/24"), IPv4Address("192.0.2.1"))
MAC = "06:0a:0b:0c:0d:0e"
SPEC = Spec("web1", network=NetworkMode.UPLINK, uplink=Uplink("eth0"), hardware=MAC, created="2026-01-01T00:00:00+00:00")


def wrong(spec: Spec) -> str:
    with pytest.raises(InvalidInput) as caught:
        combinations.check(spec)
    return str(caught.value)


def test_it_is_read_from_words_and_written_as_a_mapping() -> None:
    read = UPLINK.parse("parent=eth0 vlan=30 address=192.0.2.5/24 gateway=192.0.2.1")
    assert read == FIXED
    assert UPLINK.render(FIXED) == {"parent": "eth0", "vlan": 30, "address": "192.0.2.5/24", "gateway": "192.0.2.1"}


def test_a_mapping_in_the_place_of_the_word_gets_the_right_form_as_answer() -> None:
    complaints: list[str] = []
    said = Fields({"network": {"parent": "eth0", "vlan": 30}}, "web", complaints)
    read_said([askable()["network"]], said)
    assert complaints == ["web: network: it is a word; write `network: uplink` and `uplink: {parent: eth0, vlan: 30}`"]


def test_the_interface_for_a_vlan_has_a_name_that_the_kernel_takes() -> None:
    assert FIXED.device == vlan_device("eth0", 30)
    assert len({vlan_device("x" * 15, 4094), vlan_device("y" * 15, 4094)}) == 2
    assert len(vlan_device("x" * 15, 4094)) < 16
    assert Uplink("eth0").device == "eth0"


def six(address: str, gateway: str | None = None) -> Uplink:
    """An IPv6 address on an interface of the host's."""
    return Uplink("eth0", address6=IPv6Interface(address), gateway6=None if gateway is None else IPv6Address(gateway))


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (Uplink(), "names no interface"),
        (Uplink("eth0", 0, IPv4Interface("192.0.2.5")), "write it like 192.0.2.5/24"),
        (Uplink("eth0", 0, IPv4Interface("192.0.2.0/24")), "can't be a container's"),
        (Uplink("eth0", 0, IPv4Interface("192.0.2.255/24")), "can't be a container's"),
        (Uplink("eth0", 0, None, IPv4Address("192.0.2.1")), "goes with an address"),
        (Uplink("eth0", 0, IPv4Interface("192.0.2.5/24"), IPv4Address("192.0.3.1")), "is not in"),
        (Uplink("eth0", 0, IPv4Interface("192.0.2.5/24"), IPv4Address("192.0.2.5")), "container and its gateway"),
        (six("2001:db8::5"), "write it like 2001:db8::5/64"),
        (six("2001:db8::/64"), "can't be a container's"),
        (six("fe80::5/64"), "can't be a container's"),
        (six("ff02::5/64"), "can't be a container's"),
        (six("2001:db8::5/64", "2001:db9::1"), "is not in"),
        (six("2001:db8::5/64", "2001:db8::5"), "container and its gateway"),
        (Uplink("eth0", gateway6=IPv6Address("fe80::1")), "goes with an address6"),
    ],
)
def test_what_makes_no_sense_is_refused(said: Uplink, complaint: str) -> None:
    assert complaint in wrong(replace(SPEC, uplink=said))


def test_what_does_not_go_along_is_refused() -> None:
    assert "does not reach" in wrong(replace(SPEC, publish=(parse_publication("80:80"),)))
    assert "does not reach" in wrong(replace(SPEC, health=HealthType().parse("tcp 80")))
    assert "say it like --uplink" in wrong(replace(SPEC, static_addresses=(IPv4Address("192.0.2.5"),)))
    assert "goes with --network uplink" in wrong(replace(SPEC, network=NetworkMode.BRIDGE))
    combinations.check(replace(SPEC, isolated=True, uplink=FIXED))


def test_affinity_takes_a_published_port() -> None:
    spec = Spec("web1", network=NetworkMode.BRIDGE, affinity=Affinity.CLIENT)
    assert "publishes no port" in wrong(spec)
    combinations.check(replace(spec, publish=(parse_publication("80:80"),)))
    assert combinations.as_it_is(spec).affinity is Affinity.NONE


def test_a_spec_on_disk_has_a_mac_address(tmp_path: Path) -> None:
    assert store.parse("web1", store.render(SPEC).encode(), "file") == SPEC
    with pytest.raises(Broken):
        store.parse("web1", store.render(replace(SPEC, hardware=None)).encode(), "file")


def test_one_with_a_chosen_address_waits_for_none() -> None:
    assert Container("web1", SPEC).waits_for_address
    fixed = Container("web1", replace(SPEC, uplink=FIXED))
    assert not fixed.waits_for_address
    assert fixed.addresses == (IPv4Address("192.0.2.5"),)
    assert SPEC.port == ""
    both = Container("web1", replace(SPEC, uplink=replace(FIXED, address6=IPv6Interface("2001:db8::5/64"))))
    assert both.addresses == (IPv4Address("192.0.2.5"), IPv6Address("2001:db8::5"))
    assert not Container("web1", replace(SPEC, uplink=six("2001:db8::5/64", "fe80::1"))).waits_for_address


def test_lxc_is_told_an_ipv6_address_only_where_the_kernel_has_them(tmp_path: Path) -> None:
    spec = replace(SPEC, uplink=six("2001:db8::5/64", "fe80::1"))
    combinations.check(spec)
    host = Platform(
        cgroup2=True, controllers=frozenset(), apparmor=False, seccomp=False, bridge="br", cgroup="", hook=Path("/hook")
    )
    with_it, without = (
        lxc_config.render(spec, own_paths(tmp_path), replace(host, ipv6=there), 64) for there in (True, False)
    )
    assert "lxc.net.0.ipv6.address = 2001:db8::5/64\nlxc.net.0.ipv6.gateway = fe80::1\n" in with_it
    assert "lxc.net.0.ipv6" not in without


def test_a_lease_has_name_servers() -> None:
    lease = lan.parse_lease("address 192.0.2.5/24 192.0.2.1 192.0.2.2")
    assert lease.servers == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))
    assert lan.parse_lease("address 192.0.2.5/24").servers == ()


class Net:
    """A /sys/class/net and the kernel's list of VLANs."""

    def __init__(self, directory: Path) -> None:
        self.net, self.vlans = directory / "net", directory / "vlans"
        self.own: set[tuple[str, str]] = set()
        """The host's interfaces and addresses."""
        self._index = 1
        self.net.mkdir()

    def add(self, name: str, *, flags: int = 0x1003, alias: str = "", kind: int = 1) -> Path:
        own = self.net / name
        own.mkdir()
        self._index += 1
        for file, text in (("ifindex", str(self._index)), ("flags", hex(flags)), ("ifalias", alias), ("type", str(kind))):
            (own / file).write_text(f"{text}\n")
        return own

    def vlan(self, name: str, number: int, parent: str, *, also: bool = False) -> None:
        head = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n"
        former = self.vlans.read_text() if also else head
        self.vlans.write_text(f"{former}{name:15}| {number}  | {parent}\n")


def paths_below(directory: Path) -> Paths:
    (directory / "own").mkdir()
    return own_paths(directory / "own")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Net:
    made = Net(tmp_path)
    monkeypatch.setattr(uplink, "_NET", made.net)
    monkeypatch.setattr("lxcfleet.host.net.interfaces._NET", made.net)
    monkeypatch.setattr("lxcfleet.host.net.interfaces.has_address", lambda name, address: (name, str(address)) in made.own)
    monkeypatch.setattr(uplink, "_VLANS", made.vlans)
    return made


def test_what_can_be_no_uplink_is_refused_with_the_reason(net: Net) -> None:
    with pytest.raises(WrongState, match="no interface eth0"):
        uplink.check_parent(Uplink("eth0"))
    net.add("eth0")
    uplink.check_parent(Uplink("eth0"))
    net.add("down0", flags=0x1002)
    with pytest.raises(WrongState, match="ip link set down0 up"):
        uplink.check_parent(Uplink("down0"))
    net.add("tun0", kind=65534)
    with pytest.raises(Unsupported, match="no Ethernet interface"):
        uplink.check_parent(Uplink("tun0"))
    (net.add("wlan0") / "phy80211").touch()
    with pytest.raises(Unsupported, match="wireless"):
        uplink.check_parent(Uplink("wlan0"))
    (net.add("eth1") / "master").symlink_to("../br0")
    with pytest.raises(WrongState, match="bridge: br0"):
        uplink.check_parent(Uplink("eth1"))


def test_a_vlan_of_another_tool_is_not_taken(net: Net) -> None:
    net.add("eth0")
    net.add("eth0.30")
    net.vlan("eth0.30", 30, "eth0")
    with pytest.raises(WrongState, match=r"parent=eth0\.30"):
        uplink.check_parent(FIXED)
    uplink.check_parent(replace(FIXED, vlan=31))
    own = vlan_device("eth0", 30)
    net.add(own, alias="office")
    net.vlan(own, 30, "eth0")
    with pytest.raises(WrongState, match=own):
        uplink.check_parent(FIXED)  # of the same name, and with another alias than lxcfleet gives
    (net.net / own / "ifalias").write_text("\n")
    uplink.check_parent(FIXED)  # lxcfleet was killed before it gave the alias
    assert uplink.made("lxcfleet0") == []
    (net.net / own / "ifalias").write_text(f"{uplink.MARK}lxcfleet0 other0\n")
    uplink.check_parent(FIXED)
    assert uplink.users(own) == ["lxcfleet0", "other0"]
    assert uplink.made("other0") == [own]
    assert uplink.made("third0") == []


def test_an_address_belongs_to_one_container(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net.add("eth0")
    fixed = replace(SPEC, uplink=replace(FIXED, vlan=0))
    uplinks = Uplinks(context_of(paths_below(tmp_path), Container("web1", fixed)))
    uplinks.check([fixed])
    with pytest.raises(InvalidInput, match="web1 has it"):
        uplinks.check([replace(fixed, name="web2")])
    other = replace(fixed.uplink, address=IPv4Interface("192.0.2.9/24"))
    with pytest.raises(InvalidInput, match="web2 has it"):
        uplinks.check([replace(fixed, name=name, uplink=other) for name in ("web2", "web3")])
    net.own.update((("eth1", "192.0.2.9"), ("eth0", "192.0.2.10")))
    uplinks.check([replace(fixed, name="web2", uplink=other)])  # another network may have the same addresses
    hosts = replace(fixed.uplink, address=IPv4Interface("192.0.2.10/24"))
    with pytest.raises(InvalidInput, match="the host itself has it"):
        uplinks.check([replace(fixed, name="web2", uplink=hosts)])
    monkeypatch.setattr(dhcp, "PROGRAM", tmp_path / "udhcpc")
    with pytest.raises(Unsupported, match="apt install udhcpc"):
        uplinks.check([replace(SPEC, name="web4")])
    assert [(each.check, each.level) for each in uplinks.findings()] == [("uplink", "ok")]
    (net.net / "eth0" / "flags").write_text("0x1002\n")
    assert [(each.check, each.level) for each in uplinks.findings()] == [("uplink", "fail")]


def test_a_vlan_is_made_once_mended_and_removed_with_the_last_container(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net.add("eth0")
    own = vlan_device("eth0", 30)

    def answers(operation: str, argument: Any) -> dict[str, Any]:
        if operation == "uplink" and not argument["hardware"]:
            net.add(own, alias=f"{uplink.MARK}{argument['user']}")
            net.vlan(own, 30, "eth0")
        if operation == "leave_uplink":
            shutil.rmtree(net.net / own)
        return {}

    launcher = FakeLauncher(answers)
    container = Container("web1", replace(SPEC, uplink=FIXED))
    context = context_of(paths_below(tmp_path), container, launcher=launcher)
    told: list[Event] = []
    context.bus.subscribe("test", UplinkGone, told.append)
    context.bus.subscribe("test", NetworkRepaired, told.append)
    uplinks = Uplinks(context)
    card = [True]
    monkeypatch.setattr(uplink, "has_card", lambda pid: card[0])

    async def scenario() -> None:
        spec = container.spec
        assert spec is not None
        await asyncio.gather(*(uplinks.ensure(spec) for _ in range(3)))
        run(container)
        assert container.running is not None
        container.running.began = 1.0
        assert await uplinks.look()
        assert [argument["hardware"] for _, argument in launcher.asked] == ["", MAC, MAC, MAC]
        net.vlans.unlink()
        shutil.rmtree(net.net / own)
        (net.net / "eth0").rename(tmp_path / "away")
        card[0] = False
        for _ in range(2):
            await uplinks.look()
        assert [type(each) for each in told] == [UplinkGone]
        (tmp_path / "away").rename(net.net / "eth0")
        await uplinks.look()
        assert [type(each) for each in told] == [UplinkGone, NetworkRepaired]
        assert launcher.operations()[4:] == ["uplink", "rejoin"]
        assert launcher.asked[-1][1][0]["gateway"] == "192.0.2.1"
        context.registry.forget("web1")
        assert not await uplinks.look()
        assert launcher.operations()[-1] == "leave_uplink"
        assert uplink.made(str(context.paths.run)) == []

    asyncio.run(scenario())


def test_a_vlan_stays_while_a_container_is_on_it_whose_spec_cannot_be_read(net: Net, tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    own = vlan_device("eth0", 30)
    net.add(own, alias=f"{uplink.MARK}{paths.run}")
    net.vlan(own, 30, "eth0")
    launcher = FakeLauncher()
    context = context_of(paths, Container("web1", None), launcher=launcher)
    uplinks = Uplinks(context)
    asyncio.run(uplinks.release())
    assert launcher.operations() == []  # it has no configuration that can be read either
    config = paths.container("web1").config
    config.parent.mkdir()
    config.write_text(f"lxc.net.0.type = macvlan\nlxc.net.0.link = {own}\n")
    asyncio.run(uplinks.release())
    assert launcher.operations() == []
    config.write_text("lxc.net.0.type = veth\nlxc.net.0.link = lxcfleet0\n")
    asyncio.run(uplinks.release())
    assert launcher.operations() == ["leave_uplink"]


def test_one_container_keeps_those_of_other_networks_from_nothing(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(operation: str, argument: Any) -> dict[str, Any]:
        if operation == "rejoin" and argument[0]["name"] == "web0":
            return {"error": HostError("web0 can't be connected", why="its root is in the way").body()}
        return {}

    containers = []
    for number in range(3):
        net.add(f"eth{number}")
        container = Container(f"web{number}", replace(SPEC, name=f"web{number}", uplink=Uplink(f"eth{number}")))
        run(container)
        assert container.running is not None
        container.running.began = 1.0
        containers.append(container)
    launcher = FakeLauncher(answers)
    uplinks = Uplinks(context_of(paths_below(tmp_path), *containers, launcher=launcher))
    monkeypatch.setattr(uplink, "has_card", lambda pid: False)
    assert asyncio.run(uplinks.look())
    mended = {argument[0]["name"] for operation, argument in launcher.asked if operation == "rejoin"}
    assert mended == {"web0", "web1", "web2"}


def test_a_vlan_that_a_new_container_needs_is_not_removed(net: Net, tmp_path: Path) -> None:
    paths = paths_below(tmp_path)
    for vlan in (29, 30):
        net.add(vlan_device("eth0", vlan), alias=f"{uplink.MARK}{paths.run}")
        net.vlan(vlan_device("eth0", vlan), vlan, "eth0", also=vlan > 29)
    removed = []

    def answers(operation: str, argument: Any) -> dict[str, Any]:
        removed.append(argument["device"])
        vlan = 29 if removed == [vlan_device("eth0", 30)] else 30
        context.registry.add(Container("web1", replace(SPEC, uplink=Uplink("eth0", vlan))))
        return {}

    context = context_of(paths, launcher=FakeLauncher(answers))
    asyncio.run(Uplinks(context).release())
    assert len(removed) == 1


@pytest.mark.parametrize(
    ("failure", "looks"), [(HostError("no bridge"), 1), (OSError("full"), 1), (asyncio.CancelledError(), 0)]
)
def test_a_bridge_that_cannot_be_mended_keeps_no_uplink_from_that_and_a_daemon_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, looks: int
) -> None:
    looked = []

    async def check(_: object) -> bool:
        raise failure

    async def look(_: object) -> bool:
        looked.append(1)
        return False

    monkeypatch.setattr("lxcfleet.network.bridge.Bridge.check", check)
    monkeypatch.setattr(Uplinks, "look", look)
    paths = paths_below(tmp_path)
    network = FleetNetwork(paths, NetworkSettings(), registry_of(paths), cast(Any, FakeLauncher()), Bus(), Tasks())
    with pytest.raises(type(failure)):
        asyncio.run(network.check())
    assert len(looked) == looks


def test_half_an_interface_does_not_count_as_connected(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker was killed in between, and the next daemon or the next look finishes that."""
    net.add("eth0")
    paths = paths_below(tmp_path)
    container = Container("web1", replace(SPEC, uplink=Uplink("eth0")))
    run(container)
    assert container.running is not None
    container.running.began = 1.0
    monkeypatch.setattr(uplink, "has_card", lambda pid: True)
    mark = paths.joining("web1")
    mark.parent.mkdir()
    for text, asked in ((uplink.joining(container.running.pid, 1.0), True), (uplink.joining(1, 2.0), False), ("", False)):
        mark.write_text(text)
        launcher = FakeLauncher()
        uplinks = Uplinks(context_of(paths, container, launcher=launcher))
        assert asyncio.run(uplinks.look())
        assert ("rejoin" in launcher.operations()) is asked, text
    uplinks.forget("web1")
    assert not mark.exists()
