"""Containers try what they must not be able to do on the network."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lxcfleet.spec.container.addresses import interface_name

from .harness import TIMEOUT, Fleet, until

pytestmark = pytest.mark.system

ETH_P_ALL = 3

SERVER = """
import socket
s = socket.create_server(("", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, peer = s.accept()
    c.sendall(peer[0].encode())
    c.close()
"""
SERVE = ("--", "python3", "-c", SERVER)

CLIENT = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(100).decode())
except OSError as error:
    print("!", error)
"""

RAW = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for text in sys.argv[1:]:
    s.send(bytes.fromhex(text))
"""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose containers are connected by default."""
    own = Fleet()
    try:
        start(own)
        yield own
        own.clean()
    finally:
        own.run("destroy", "--all", "--force", "-q", "--drain", "0")
        own.remove()


def start(fleet: Fleet, more: str = "") -> None:
    """Start a daemon with more settings of the network."""
    fleet.settings(f"network: {{bridge: {fleet.bridge}, domain: {fleet.tag}.test, drain: 0{more}}}\n")
    fleet.stop_daemon()
    fleet.start_daemon()


def address(fleet: Fleet, name: str) -> str:
    return str(fleet.record(name)["addresses"][0])


def gateway(fleet: Fleet) -> str:
    lines = subprocess.run(["ip", "-br", "-4", "addr", "show", fleet.bridge], capture_output=True, text=True, check=True)
    return lines.stdout.split()[2].partition("/")[0]


def reaches(fleet: Fleet, name: str, where: str, port: int = 8080) -> bool:
    """Whether a container can connect to an address."""
    said = fleet.ok("exec", name, "--", "python3", "-c", CLIENT, where, str(port))
    return not said.startswith("!")


def must_reach(fleet: Fleet, name: str, where: str) -> None:
    """A container can connect to an address. On a busy host the first try may be too early, or take too long."""
    until(lambda: reaches(fleet, name, where), what=f"{name} reaches {where}")


def from_host(where: str, port: int = 8080) -> bool:
    try:
        with socket.create_connection((where, port), timeout=2) as connection:
            return bool(connection.recv(100))
    except OSError:
        return False


def mac(text: str) -> str:
    return text.replace(":", "")


def ip(text: str) -> str:
    return socket.inet_aton(text).hex()


def hardware(fleet: Fleet, name: str) -> str:
    return fleet.inside(name, "cat /sys/class/net/eth0/address")


def arp_reply(source: str, claimed_mac: str, claimed_ip: str, to_mac: str, to_ip: str) -> str:
    """An Ethernet frame that says where an IP address is."""
    claim = f"{mac(claimed_mac)}{ip(claimed_ip)}{mac(to_mac)}{ip(to_ip)}"
    return f"{mac(to_mac)}{mac(source)}08060001080006040002{claim}"


def seen_by(fleet: Fleet, name: str, neighbour: str) -> str:
    """The MAC address that a container believes a neighbour to have."""
    pid = fleet.pid(name)
    found = subprocess.run(
        ["nsenter", "-n", "-t", str(pid), "ip", "neigh", "show", neighbour], capture_output=True, text=True, check=True
    )
    words = found.stdout.split()
    return words[words.index("lladdr") + 1] if "lladdr" in words else ""


SPY = """
import socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 3))  # all protocols
s.setsockopt(263, 1, struct.pack("iHH8s", socket.if_nametoindex("eth0"), 1, 0, b""))  # SOL_PACKET: promiscuous
print("listens", flush=True)
while True:
    if b"secret-datagram" in s.recv(2000):
        print("seen", flush=True)
"""


def test_frames_for_a_container_that_died_reach_no_other_container(fleet: Fleet) -> None:
    victim, spy, late = fleet.name("victim"), fleet.name("spy"), fleet.name("late")
    fleet.ok("create", victim, *SERVE)
    fleet.ok("create", spy, "--isolated", "--", "python3", "-c", SPY)
    until(lambda: "listens" in fleet.ok("logs", spy), what="the spy listens")
    until(lambda: from_host(address(fleet, victim)), what="the host reaches the container")
    where = address(fleet, victim)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for sent in range(40):
            if sent == 10:
                os.kill(fleet.pid(victim), signal.SIGKILL)
            with contextlib.suppress(OSError):
                client.sendto(b"secret-datagram", (where, 9))
            time.sleep(0.05)
    # A container gets the frames for it from the first moment, although the bridge has seen none from it yet.
    fleet.ok("create", late, *SERVE)
    until(lambda: from_host(address(fleet, late)), what="the host reaches the container")
    assert fleet.ok("logs", spy).count("seen") == 0


def test_what_a_container_asks_of_others_reaches_its_owner_only(fleet: Fleet) -> None:
    """Else each start would cost as many frames as there are containers."""
    one, two, still = fleet.name(1), fleet.name(2), fleet.name("still")
    for name in (one, two):
        fleet.ok("create", name, *SERVE)
    fleet.create(still)
    peers = {bytes.fromhex(mac(hardware(fleet, name))) for name in (one, two)}
    # A socket that has a protocol before it is bound to an interface gets the frames of all interfaces until then; packet(7).
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface_name(IPv4Address(address(fleet, still))), ETH_P_ALL))
        wire.setblocking(False)
        for _ in range(2):
            fleet.ok("restart", two)
            own, own6 = fleet.record(two)["addresses"]
            for where in (own, own6):
                must_reach(fleet, one, where)
                until(lambda where=where: from_host(where), what="the host reaches it, too")  # type: ignore[misc]
        must_reach(fleet, two, f"{one}.{fleet.tag}.test")
        seen = []
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.append(wire.recv(200))
    assert [frame.hex() for frame in seen if frame[6:12] in peers] == []


def test_isolated_containers_are_kept_from_each_other_and_from_the_host(fleet: Fleet) -> None:
    one, two, free = fleet.name(1), fleet.name(2), fleet.name("free")
    for name in (one, two):
        fleet.ok("create", name, "--isolated", *SERVE)
    fleet.ok("create", free, *SERVE)
    for name in (one, two, free):
        until(lambda name=name: from_host(address(fleet, name)), what="the host reaches the container")  # type: ignore[misc]
    assert fleet.record(one)["isolated"]
    for left, right in ((one, two), (two, one)):
        for where in fleet.record(right)["addresses"]:
            assert not reaches(fleet, left, where), where
    # A container that is not isolated (a proxy, a database) reaches isolated ones, and they reach it.
    must_reach(fleet, free, address(fleet, one))
    must_reach(fleet, one, address(fleet, free))
    # A route to the neighbour by way of the host, which is the gateway, does not help.
    home = gateway(fleet)
    pid = str(fleet.pid(one))
    by_host = ["nsenter", "-n", "-t", pid, "ip", "route", "add", address(fleet, two), "via", home]
    subprocess.run(by_host, check=True)
    assert not reaches(fleet, one, address(fleet, two))
    # Of the host they reach the name server, and nothing else.
    with socket.create_server(("", 0)) as service:
        port = service.getsockname()[1]
        assert not reaches(fleet, one, home, port)
        with _another_name_server(fleet.tag) as elsewhere:
            assert reaches(fleet, free, elsewhere, 53)
            assert not reaches(fleet, one, elsewhere, 53), "a name server of the host's own is not the fleet's"
        ask = ("exec", one, "--", "getent", "hosts", f"{free}.{fleet.tag}.test")
        until(lambda: fleet.run(*ask).status == 0, what="the name server answers")
    # The same holds after a container was restarted, and the daemon.
    fleet.ok("restart", two)
    fleet.stop_daemon(9)
    fleet.start_daemon()
    until(lambda: from_host(address(fleet, two)), what="the container is up again")
    subprocess.run([*by_host[:4], "ip", "route", "del", address(fleet, two)], check=True)
    assert not reaches(fleet, one, address(fleet, two))


@contextlib.contextmanager
def _another_name_server(tag: str) -> Iterator[str]:
    """Something at port 53 of an address of the host's that is not the bridge's."""
    where = f"198.18.{int(tag[:2], 16)}.{int(tag[2:4], 16)}"
    subprocess.run(["ip", "addr", "add", f"{where}/32", "dev", "lo"], check=True)
    try:
        program = SERVER.replace("8080", "53").replace('""', repr(f"::ffff:{where}"))
        with subprocess.Popen([sys.executable, "-c", program]) as served:
            until(lambda: from_host(where, 53), what="it listens")
            yield where
            served.kill()
    finally:
        subprocess.run(["ip", "addr", "del", f"{where}/32", "dev", "lo"], check=True)


def tables() -> str:
    """The tables of nftables."""
    return subprocess.run(["/usr/sbin/nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def flush(fleet: Fleet, *, there: bool = True) -> None:
    """Do to this fleet, and to no other on this machine, as `nft flush ruleset` does. ``there``: the rules must be there."""
    text = "".join(f"delete table {family} lxcfleet_{fleet.bridge}\n" for family in ("bridge", "inet"))
    subprocess.run(["/usr/sbin/nft", "-f", "-"], input=text.encode(), capture_output=not there, check=there)


def test_containers_on_further_bridges_are_as_those_on_the_first(fleet: Fleet) -> None:
    """Bridges of four addresses: the network's and the bridge's own, and those of two containers, are on the first."""
    fleet.stop_daemon()
    fleet.start_daemon(module="tests.system.small_bridges_daemon")
    near, kept, far, last = (fleet.name(word) for word in ("near", "kept", "far", "last"))
    fleet.ok("create", near, *SERVE)
    fleet.ok("create", kept, "--isolated", *SERVE)
    fleet.ok("create", far, "--isolated", *SERVE)
    where = {name: fleet.record(name)["addresses"] for name in (near, kept, far)}
    for version in where[far]:
        until(lambda version=version: from_host(version), what="the host reaches the container")  # type: ignore[misc]
        must_reach(fleet, near, version)
    for version in where[near]:
        must_reach(fleet, far, version)
    must_reach(fleet, far, f"{near}.{fleet.tag}.test")
    assert not reaches(fleet, far, where[kept][0])
    assert not reaches(fleet, kept, where[far][1])
    until(lambda: from_host(where[kept][0]), what="the host reaches an isolated container")
    # A cable that somebody pulled is mended, and a third bridge comes when it is needed.
    further = next(each for each in os.listdir("/sys/class/net") if each.startswith(f"lg{where_begins(where[far][0])}"))
    subprocess.run(["ip", "link", "set", f"lh{further[2:]}", "down"], check=True)
    until(lambda: from_host(where[far][0]), what="the cable is mended", seconds=30)
    for number in range(4):
        fleet.ok("create", f"{last}{number}", *SERVE)
    must_reach(fleet, near, address(fleet, f"{last}3"))
    until(lambda: "cut off" in " ".join(event["message"] for event in fleet.events("repaired")), what="an event tells it")
    fleet.ok("destroy", "--all", "--force", "-q", "--drain", "0")
    assert not [each for each in os.listdir("/sys/class/net") if each[2:].startswith(further[2:10])]


def where_begins(text: str) -> str:
    """The begin of the fleet's range in hexadecimal."""
    return f"{int(IPv4Address(text)) & 0xFFFF0000:08x}"


def test_firewall_rules_that_somebody_flushed_come_back_at_once(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    for name in (one, two):
        fleet.ok("create", name, "--isolated", *SERVE)
        until(lambda name=name: from_host(address(fleet, name)), what="the host reaches the container")  # type: ignore[misc]
    for number in (1, 2):
        flush(fleet)
        until(lambda number=number: len(fleet.events("repaired")) == number, 2, "an event tells the repair")  # type: ignore[misc]
        assert "rules" in fleet.events("repaired")[-1]["message"]
        assert not reaches(fleet, one, address(fleet, two))
    # Somebody who flushes them again and again is met each time, and starts go on meanwhile.
    with fleet.spawn("restart", one, two, "-q") as restart:
        for _ in range(8):
            flush(fleet, there=False)
            time.sleep(0.2)
        assert restart.wait(TIMEOUT) == 0
    until(lambda: tables().count(f"lxcfleet_{fleet.bridge}") == 2, what="the rules are back after the last time")
    for name in (one, two):
        until(lambda name=name: from_host(address(fleet, name)), what="the host reaches it again")  # type: ignore[misc]
    assert not reaches(fleet, one, address(fleet, two))
    # Without a daemon the rules stay away; the bridge itself still keeps the two apart.
    client = ["nsenter", "-n", "-t", str(fleet.pid(one)), "python3", "-c", CLIENT, address(fleet, two), "8080"]
    fleet.stop_daemon(9)
    flush(fleet)
    assert subprocess.run(client, capture_output=True, text=True, check=True).stdout.startswith("!")
    fleet.start_daemon()
    until(lambda: tables().count(f"lxcfleet_{fleet.bridge}") == 2, what="a new daemon repairs the rules")


def test_the_host_can_be_closed_to_all_containers(fleet: Fleet) -> None:
    start(fleet, ", host_access: false")
    one, two = fleet.name(1), fleet.name(2)
    fleet.ok("create", one, *SERVE)
    fleet.ok("create", two, *SERVE)
    until(lambda: from_host(address(fleet, two)), what="the host reaches the container")
    with socket.create_server(("", 0)) as service:
        assert not reaches(fleet, one, gateway(fleet), service.getsockname()[1])
    must_reach(fleet, one, address(fleet, two))
    must_reach(fleet, one, fleet.record(two)["addresses"][-1])
    assert fleet.run("exec", one, "--", "getent", "hosts", two).status == 0


def test_no_container_sends_from_the_address_of_another(fleet: Fleet) -> None:
    thief, victim, friend = fleet.name("thief"), fleet.name("victim"), fleet.name("friend")
    for name in (thief, victim, friend):
        fleet.ok("create", name, *SERVE)
    must_reach(fleet, friend, address(fleet, victim))
    own, theirs, its = hardware(fleet, thief), hardware(fleet, victim), hardware(fleet, friend)
    assert seen_by(fleet, friend, address(fleet, victim)) == theirs

    # The thief says by ARP that the victim is at the thief's address, with the right and with the wrong sender of the frame.
    for source in (own, theirs):
        for claimed in (own, theirs):
            frame = arp_reply(source, claimed, address(fleet, victim), its, address(fleet, friend))
            fleet.ok("exec", thief, "--", "python3", "-c", RAW, frame, frame, frame)
    assert seen_by(fleet, friend, address(fleet, victim)) == theirs
    must_reach(fleet, friend, address(fleet, victim))

    # The thief sends IPv4 from the victim's addresses (IP, MAC). The friend counts what arrives.
    assert datagrams(fleet, thief, friend, own, address(fleet, thief), comes=True) == 1
    assert datagrams(fleet, thief, friend, own, address(fleet, victim)) == 0
    assert datagrams(fleet, thief, friend, theirs, address(fleet, thief)) == 0
    assert datagrams(fleet, thief, friend, theirs, address(fleet, victim)) == 0

    # The thief takes the victim's MAC address as its own.
    at = ports_of(fleet, theirs)
    assert len(at) == 1
    change = f"ip link set eth0 down; ip link set eth0 address {theirs}; ip link set eth0 up"
    subprocess.run(["nsenter", "-n", "-t", str(fleet.pid(thief)), "sh", "-c", change], check=True)
    assert not reaches(fleet, thief, address(fleet, friend))
    assert ports_of(fleet, theirs) == at, "the thief gets no frames that are for the victim"
    must_reach(fleet, friend, address(fleet, victim))
    must_reach(fleet, victim, address(fleet, friend))


def test_no_frame_with_a_tag_of_a_vlan_leaves_a_container(fleet: Fleet) -> None:
    """The kernel puts a tag aside before the packet filter sees what is behind it: the container's own address."""
    sender, friend = fleet.name("sender"), fleet.name("friend")
    for name in (sender, friend):
        fleet.ok("create", name, *SERVE)
    honest = _datagram(fleet, friend, hardware(fleet, sender), address(fleet, sender))[:-8]
    frames = [honest[:24] + tag + honest[24:] + mark for tag, mark in (
        ("81000005", "7a67e401"), ("81000000", "7a67e402"), ("88a80005", "7a67e403"), ("8100000081000000", "7a67e404"),
        ("", "600d600d"),
    )]  # fmt: skip
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((interface_name(IPv4Address(address(fleet, friend))), ETH_P_ALL))
        wire.settimeout(TIMEOUT)
        fleet.ok("exec", sender, "--", "python3", "-c", RAW, *frames)
        seen = ""
        while "600d600d" not in seen:
            seen += wire.recv(200).hex()
    assert "7a67e4" not in seen


def ports_of(fleet: Fleet, hardware: str) -> set[str]:
    """The ports to which the fleet's bridge sends frames for this address."""
    argv = ["bridge", "-j", "fdb", "show", "br", fleet.bridge]
    entries = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return {entry["ifname"] for entry in entries if entry["mac"] == hardware}


def datagrams(fleet: Fleet, sender: str, to: str, source_mac: str, source_ip: str, *, comes: bool = False) -> int:
    """Send one UDP datagram with this sender to another container: 1 if it arrives, 0 if not. An honest one goes after it by
    the same way, and is waited for. ``comes``: so is the first."""
    count = "grep -m1 ^Udp: /proc/net/snmp -A1 | tail -1 | cut -d' ' -f3"  # NoPorts
    before = int(fleet.inside(to, count))
    honest = hardware(fleet, sender), address(fleet, sender)
    frames = [_datagram(fleet, to, *source) for source in ((source_mac, source_ip), honest)]
    fleet.ok("exec", sender, "--", "python3", "-c", RAW, *frames)
    until(lambda: int(fleet.inside(to, count)) > before + comes, what="what has to arrive has arrived")
    return int(fleet.inside(to, count)) - before - 1


def _datagram(fleet: Fleet, to: str, source_mac: str, source_ip: str) -> str:
    """A frame with a UDP datagram, in hexadecimal digits."""
    data = "00010001000c0000" + "00000000"
    header = f"4500{20 + 12:04x}000100004011{{}}{ip(source_ip)}{ip(address(fleet, to))}"
    total = sum(int(header.format("0000")[i : i + 4], 16) for i in range(0, 40, 4))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return mac(hardware(fleet, to)) + mac(source_mac) + "0800" + header.format(f"{checksum:04x}") + data


def test_no_container_passes_for_a_router(fleet: Fleet) -> None:
    thief, friend = fleet.name("thief"), fleet.name("friend")
    for name in (thief, friend):
        fleet.ok("create", name, *SERVE)
    own = hardware(fleet, thief)
    link_local = fleet.inside(thief, "grep -m1 ^fe80 /proc/net/if_inet6 | cut -c1-32")
    everyone = "ff020000000000000000000000000001"
    own_prefix = f"20010db8{fleet.tag}00"  # the host may have others below 2001:db8::/32 from tests beside this one
    prefix = "0304" + "40c0" + "00000e10" * 2 + "00000000" + own_prefix + "0" * 16
    advert = icmp6(link_local, everyone, "86000000" + "40000708" + "00000000" * 2 + prefix)
    frame = "333300000001" + mac(own) + "86dd" + advert
    fleet.ok("exec", thief, "--", "python3", "-c", RAW, *[frame] * 3)
    assert own_prefix not in fleet.inside(friend, "cat /proc/net/if_inet6 /proc/net/ipv6_route")
    assert own_prefix not in Path("/proc/net/if_inet6").read_text()


def icmp6(source: str, target: str, message: str) -> str:
    """An IPv6 packet with an ICMPv6 message, in hexadecimal; RFC 4443, 2.3 for the checksum."""
    size = len(message) // 2
    whole = source + target + f"{size:08x}" + "0000003a" + message
    total = sum(int(whole[i : i + 4], 16) for i in range(0, len(whole), 4))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return f"60000000{size:04x}3aff{source}{target}{message[:4]}{~total & 0xFFFF:04x}{message[8:]}"


def test_the_guard_can_be_switched_off(fleet: Fleet) -> None:
    start(fleet, ", guard: false")
    thief, friend = fleet.name("thief"), fleet.name("friend")
    for name in (thief, friend):
        fleet.ok("create", name, *SERVE)
    other = address(fleet, thief).rsplit(".", 1)[0] + ".200"
    assert datagrams(fleet, thief, friend, hardware(fleet, thief), other) == 1
