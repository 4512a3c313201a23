"""Containers on a network of one of the host's interfaces (macvlan): a veth stands for the uplink, with a machine behind it
that serves DHCP, in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcfleet.containers import store
from lxcfleet.spec.container.addresses import lan_port
from lxcfleet.spec.container.spec import Spec

from .harness import SLEEP, Fleet, until
from .test_dhcp import SECONDS, ip

pytestmark = pytest.mark.system

needs_udhcpc = pytest.mark.skipif(not Path("/sbin/udhcpc").exists(), reason="needs udhcpc")
ROUTER6 = "2001:db8:9::1"
ROUTER, RANGE, SERVER = "10.78.9.1", "10.78.9.50,10.78.9.99", "10.78.9.53"
TAGGED = "10.78.30"


class Lan:
    """An uplink of the host's, and a machine at its other end."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self._directory = name, directory
        self._servers: list[subprocess.Popen[bytes]] = []
        ip("netns", "add", name)
        self.plug()

    def plug(self) -> None:
        """The uplink comes."""
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self.name, "up")
        addresses = (f"addr add {ROUTER}/24 dev eth0", f"addr add {ROUTER6}/64 dev eth0 nodad")
        for words in (*addresses, "link set eth0 up", "link set lo up"):
            ip("-n", self.name, *words.split())
        self.serve("eth0", RANGE)

    def unplug(self) -> None:
        """The uplink goes, with everything on it."""
        self.silence()
        ip("link", "del", self.name)

    def tag(self, number: int) -> None:
        """The machine is on a VLAN, too."""
        ip("-n", self.name, "link", "add", "link", "eth0", "name", "tagged", "type", "vlan", "id", str(number))
        ip("-n", self.name, "addr", "add", f"{TAGGED}.1/24", "dev", "tagged")
        ip("-n", self.name, "link", "set", "tagged", "up")
        self.serve("tagged", f"{TAGGED}.50,{TAGGED}.99")

    def serve(self, interface: str, addresses: str) -> None:
        files = [f"--{what}={self._directory}/{interface}.{what}" for what in ("dhcp-leasefile", "pid-file")]
        self._servers.append(subprocess.Popen(
            ["ip", "netns", "exec", self.name, "/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null",
             "--port=0", "--no-ping", f"--interface={interface}", "--bind-interfaces", f"--dhcp-range={addresses},10m",
             f"--dhcp-option=option:dns-server,{SERVER}", "--dhcp-authoritative", "--user=root", *files],
            stderr=subprocess.DEVNULL,
        ))  # fmt: skip

    def silence(self) -> None:
        for server in self._servers:
            server.terminate()
            server.wait(10)
        self._servers = []

    def remove(self) -> None:
        self.silence()
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)
        ip("netns", "del", self.name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Lan]]:
    if os.geteuid() != 0 or shutil.which("lxc-start") is None:
        pytest.skip("needs root and LXC")
    fleet = Fleet()
    lan = Lan(f"lu{fleet.tag}", tmp_path_factory.mktemp("lan"))
    try:
        fleet.settings("network: {default: none}\n")
        fleet.start_daemon()
        yield fleet, lan
    finally:
        fleet.run("destroy", "--all", "--force", "-q")
        fleet.remove()
        lan.remove()


@pytest.fixture
def lan(place: tuple[Fleet, Lan]) -> Lan:
    return place[1]


@pytest.fixture
def fleet(place: tuple[Fleet, Lan]) -> Iterator[Fleet]:
    yield place[0]
    place[0].clean()
    assert not list((place[0].paths.run / "uplinks").glob("*"))


def on(lan: Lan, more: str = "") -> tuple[str, ...]:
    return ("--network", "uplink", "--uplink", f"parent={lan.name} {more}".strip())


def reaches(fleet: Fleet, name: str, address: str) -> bool:
    """Whether a refusal comes back: nobody listens there."""
    script = f"exec 3<>/dev/tcp/{address}/9"
    return "refused" in fleet.run("exec", name, "--", "timeout", "2", "bash", "-c", script).err


def wait(fleet: Fleet, name: str, begins: str) -> str:
    def address() -> str | None:
        return next((each for each in fleet.record(name)["addresses"] if each.startswith(begins)), None)

    return str(until(address, SECONDS, f"{name} has an address"))


@needs_udhcpc
def test_a_dhcp_server_there_gives_address_and_name_servers(fleet: Fleet, lan: Lan) -> None:
    one, two = fleet.name("one"), fleet.name("two")
    fleet.create(one, two, options=on(lan))
    assert wait(fleet, one, "10.78.9.") != wait(fleet, two, "10.78.9.")
    until(lambda: reaches(fleet, one, ROUTER), SECONDS, "the router is reached")
    until(lambda: reaches(fleet, one, wait(fleet, two, "10.78.9.")), SECONDS, "the second is reached")
    until(lambda: f"nameserver {SERVER}" in fleet.inside(one, "cat /etc/resolv.conf"), what="the server's name server")
    before = wait(fleet, one, "10.78.9.")
    fleet.ok("restart", one)
    assert wait(fleet, one, "10.78.9.") == before
    card = fleet.inside(one, "cat /sys/class/net/eth0/address").strip()
    assert lan_port(card) not in os.listdir("/sys/class/net"), "it is on no bridge"


def test_an_address_of_the_operators_choice_with_a_gateway(fleet: Fleet, lan: Lan) -> None:
    name, other = fleet.name("fixed"), fleet.name("other")
    fleet.create(name, options=on(lan, f"address=10.78.9.20/24 gateway={ROUTER}"))
    assert fleet.record(name)["addresses"] == ["10.78.9.20"]
    until(lambda: reaches(fleet, name, ROUTER), SECONDS, "the router is reached")
    assert f"default via {ROUTER}" in fleet.inside(name, "ip route")
    refused = fleet.run("create", other, *on(lan, "address=10.78.9.20/24"), *SLEEP)
    assert refused.status == 2
    assert f"{name} has it" in refused.err
    fleet.ok("set", name, f"uplink=parent={lan.name} address=10.78.9.21/24")
    until(lambda: fleet.record(name)["addresses"] == ["10.78.9.21"], SECONDS, "the other address")


def test_ipv6_addresses_of_the_operators_choice(fleet: Fleet, lan: Lan) -> None:
    """Alone, and beside one of IPv4; they are back after the uplink was away."""
    alone, both = fleet.name("six"), fleet.name("both")
    fleet.create(alone, options=on(lan, f"address6=2001:db8:9::20/64 gateway6={ROUTER6}"))
    fleet.create(both, options=on(lan, "address=10.78.9.22/24 address6=2001:db8:9::22/64"))
    assert fleet.record(alone)["addresses"] == ["2001:db8:9::20"]
    assert fleet.record(both)["addresses"] == ["10.78.9.22", "2001:db8:9::22"]

    def are_there() -> bool:
        route = fleet.inside(alone, "ip -6 route")
        return reaches(fleet, alone, ROUTER6) and reaches(fleet, both, ROUTER6) and f"default via {ROUTER6}" in route

    until(are_there, SECONDS, "both reach the router by IPv6")
    refused = fleet.run("create", fleet.name("other"), *on(lan, "address6=2001:db8:9::20/64"), *SLEEP)
    assert (refused.status, f"{alone} has it" in refused.err) == (2, True)
    lan.unplug()
    lan.plug()
    until(are_there, SECONDS, "both reach it again after the uplink was away")


def test_isolated_ones_are_kept_apart(fleet: Fleet, lan: Lan) -> None:
    one, two = fleet.name("one"), fleet.name("two")
    fleet.create(one, options=(*on(lan, "address=10.78.9.20/24"), "--isolated"))
    fleet.create(two, options=(*on(lan, "address=10.78.9.21/24"), "--isolated"))
    until(lambda: reaches(fleet, one, ROUTER), SECONDS, "the router is reached")
    assert not reaches(fleet, one, "10.78.9.21")


@needs_udhcpc
def test_an_uplink_that_goes_and_comes_back_has_its_containers_again(fleet: Fleet, lan: Lan) -> None:
    fixed, leased = fleet.name("fixed"), fleet.name("leased")
    fleet.create(fixed, options=on(lan, f"address=10.78.9.20/24 gateway={ROUTER}"))
    fleet.create(leased, options=on(lan))
    wait(fleet, leased, "10.78.9.")
    pids = [fleet.pid(fixed), fleet.pid(leased)]
    lan.unplug()
    until(lambda: [e for e in fleet.events("cut-off") if lan.name in e["message"]], SECONDS, "it is told")
    assert any(f["check"] == "uplink" and f["level"] == "fail" for f in fleet.json_any("doctor")["findings"])
    lan.plug()
    until(lambda: reaches(fleet, fixed, ROUTER), SECONDS, "the one with an address of its own is back")
    assert f"default via {ROUTER}" in fleet.inside(fixed, "ip route")
    until(lambda: reaches(fleet, leased, ROUTER), SECONDS, "the one with a lease is back")
    assert [fleet.pid(fixed), fleet.pid(leased)] == pids
    until(lambda: fleet.events("repaired"), SECONDS, "it is told")


def test_an_uplink_with_another_name_still_has_its_containers_and_that_is_told(fleet: Fleet, lan: Lan) -> None:
    """They were told to have no network, and nothing told that the name was back; nor that the uplink went after that."""
    one = fleet.name(1)
    fleet.create(one, options=on(lan, f"address=10.78.9.20/24 gateway={ROUTER}"))
    until(lambda: reaches(fleet, one, ROUTER), SECONDS, "it is on the network")

    def rename(former: str, name: str) -> None:
        for change in (("down",), ("name", name)):
            subprocess.run(["ip", "link", "set", former, *change], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)

    other = f"r{fleet.tag}"
    cut_off, repaired = len(fleet.events("cut-off")), len(fleet.events("repaired"))  # of the tests before
    for number in (1, 2):
        rename(lan.name, other)
        try:
            until(lambda number=number: len(fleet.events("cut-off")) == cut_off + number, SECONDS, "it is told")  # type: ignore[misc]
            assert "connected until the next start" in fleet.events("cut-off")[-1]["message"]
            until(lambda: reaches(fleet, one, ROUTER), SECONDS, "it is connected")
        finally:
            rename(other, lan.name)
        until(lambda number=number: len(fleet.events("repaired")) == repaired + number, SECONDS, "it is told")  # type: ignore[misc]


def test_nothing_is_stopped_for_a_start_on_an_interface_that_is_away(fleet: Fleet, lan: Lan) -> None:
    name = fleet.name("stays")
    fleet.create(name, options=on(lan, "address=10.78.9.20/24"))
    pid = fleet.pid(name)
    lan.unplug()
    try:
        refused = fleet.run("restart", name)
    finally:
        lan.plug()
    said = f"{name} is not stopped, as it could not start again"
    assert (refused.status, said in refused.err, f"no interface {lan.name}" in refused.err) == (1, True, True), refused
    assert fleet.pid(name) == pid, "it runs on"
    fleet.ok("restart", name)
    assert fleet.pid(name) != pid


def test_a_start_waits_until_the_interface_of_the_last_run_is_gone(fleet: Fleet, lan: Lan) -> None:
    """The kernel removes it a moment after the last process, and refuses another one with its MAC address until then."""
    name, last = fleet.name("again"), f"lx{fleet.tag}"
    fleet.ok("create", name, "--no-start", *on(lan, "address=10.78.9.20/24"), *SLEEP)
    spec = store.load(fleet.paths, name)
    assert isinstance(spec, Spec)
    address = ("address", spec.mac)
    ip("link", "add", "link", lan.name, "name", last, *address, "type", "macvlan", "mode", "bridge")
    try:
        ip("link", "set", last, "up")
        start = fleet.spawn("start", name)
        time.sleep(1)
    finally:
        ip("link", "del", last)
    assert start.wait(30) == 0
    until(lambda: reaches(fleet, name, ROUTER), SECONDS, "the router is reached")


def test_what_does_not_go_along_is_refused_with_the_reason(fleet: Fleet, lan: Lan) -> None:
    for options, said in (
        ((*on(lan), "-p", "8080:80"), "does not reach"),
        ((*on(lan), "--alias", "db"), "name server is on the bridge"),
        ((*on(lan), "--health-tcp", "80"), "does not reach"),
        ((*on(lan), "--send-mbit", "5"), "bridge limits bandwidth"),
        (("--network", "uplink"), "names no interface"),
        (("--uplink", f"parent={lan.name}"), "goes with --network uplink"),
        (("--network", "uplink", "--uplink", "parent=nothere9"), "no interface nothere9"),
        (("--network", "uplink", "--uplink", "parent=lo"), "no Ethernet interface"),
        (on(lan, "address=10.78.9.0/24"), "can't be a container's"),
        (on(lan, "address=10.78.9.5/24 gateway=10.1.1.1"), "is not in"),
        (on(lan, "vlan=4095"), "4095"),
    ):
        refused = fleet.run("create", fleet.name("no"), *options, *SLEEP)
        assert refused.status in (1, 2), options
        assert said in refused.err, (options, refused.err)
    assert fleet.states() == {}


def test_an_interface_of_a_bridge_is_refused_with_a_way_out(fleet: Fleet, lan: Lan) -> None:
    bridge = f"lb{fleet.tag}"
    ip("link", "add", bridge, "type", "bridge")
    try:
        ip("link", "set", lan.name, "master", bridge)
        refused = fleet.run("create", fleet.name("no"), *on(lan), *SLEEP)
        assert f"bridge: {bridge}" in refused.err
    finally:
        ip("link", "del", bridge)  # which lets go of its ports


def has_vlans(lan: Lan) -> bool:
    words = f"ip link add link {lan.name} name lvtry type vlan id 77"
    made = subprocess.run(words.split(), capture_output=True)
    subprocess.run(["ip", "link", "del", "lvtry"], capture_output=True, check=False)
    return made.returncode == 0


def test_a_kernel_without_vlans_says_so(fleet: Fleet, lan: Lan) -> None:
    if has_vlans(lan):
        pytest.skip("this kernel has VLANs")
    name = fleet.name("tagged")
    failed = fleet.run("create", name, *on(lan, "vlan=30 address=10.78.30.5/24"), *SLEEP)
    assert failed.status != 0
    assert "8021q" in failed.err


@needs_udhcpc
def test_a_vlan_is_made_for_its_first_container_and_goes_with_the_last(fleet: Fleet, lan: Lan) -> None:
    if not has_vlans(lan):
        pytest.skip("this kernel has no VLANs")
    lan.tag(30)
    one, two = fleet.name("one"), fleet.name("two")
    fleet.create(one, two, options=on(lan, "vlan=30"))
    wait(fleet, one, TAGGED)
    until(lambda: reaches(fleet, one, f"{TAGGED}.1"), SECONDS, "the router is reached")

    def made() -> list[str]:
        return [each for each in os.listdir("/sys/class/net") if each.startswith("lv30-")]

    (device,) = made()
    ip("link", "del", device)
    until(lambda: reaches(fleet, two, f"{TAGGED}.1"), SECONDS, "it is made again, and they are on it")
    fleet.ok("destroy", one, "--force")
    assert made() == [device]
    fleet.ok("destroy", two, "--force")
    assert made() == []


def test_a_vlan_that_another_tool_made_is_left_alone(fleet: Fleet, lan: Lan) -> None:
    if not has_vlans(lan):
        pytest.skip("this kernel has no VLANs")
    other = f"lx{fleet.tag}"
    ip("link", "add", "link", lan.name, "name", other, "type", "vlan", "id", "31")
    try:
        refused = fleet.run("create", fleet.name("no"), *on(lan, "vlan=31"), *SLEEP)
        assert f"parent={other}" in refused.err
        ip("link", "set", other, "up")
        fleet.create(fleet.name("yes"), options=("--network", "uplink", "--uplink", f"parent={other} address=10.78.31.5/24"))
        fleet.clean()
        assert other in os.listdir("/sys/class/net")
    finally:
        ip("link", "del", other)
