"""Ports of the host that lead to containers: from another machine, from the host itself, from other containers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lxcfleet.spec.container.addresses import hardware_address

from .harness import PATIENCE, SLEEP, Fleet, free_port, until

pytestmark = pytest.mark.system

SERVER = """
import socket, threading
name = socket.gethostname().encode()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("", 8080))
def datagrams():
    while True:
        _, peer = u.recvfrom(100)
        u.sendto(name, peer)
threading.Thread(target=datagrams, daemon=True).start()
s = socket.create_server(("", 8080), family=socket.AF_INET6, dualstack_ipv6=True, backlog=100)
while True:
    c, peer = s.accept()
    c.sendall(name + b" " + peer[0].encode())
    c.close()
"""
ANSWER_SECONDS = 20.0 * PATIENCE
"""The seconds in which what serves must answer: a busy host may take longer than a client would wait."""
SERVE = ("--", "python3", "-c", SERVER)

CLIENT = """
import socket, sys
try:
    c = socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3]))
    print(c.recv(200).decode())
except OSError as error:
    print("!", error.errno or "timeout")
"""


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose containers are connected by default."""
    own = Fleet()
    own.settings(f"network: {{bridge: {own.bridge}, domain: {own.tag}.test, drain: 0}}\n")
    try:
        own.start_daemon()
        yield own
        own.clean()
    finally:
        own.run("destroy", "--all", "--force", "-q", "--drain", "0")
        own.remove()


@pytest.fixture
def port() -> int:
    """A port of the host that is free."""
    return free_port()


class Machine:
    """Another machine on the host's network: a network namespace, and a cable."""

    def __init__(self, tag: str) -> None:
        self.name, self.cable = f"m{tag}", f"mc{tag}"
        self.host, self.own = "198.51.100.1", "198.51.100.2"
        for line in (
            f"ip netns add {self.name}",
            f"ip link add {self.cable} type veth peer name eth0 netns {self.name}",
            f"ip addr add {self.host}/24 dev {self.cable}",
            f"ip link set {self.cable} up",
            f"ip -n {self.name} addr add {self.own}/24 dev eth0",
            f"ip -n {self.name} link set eth0 up",
            f"ip -n {self.name} link set lo up",
        ):
            subprocess.run(line.split(), check=True)

    def forward(self) -> None:
        """Have the host forward what this machine sends, as from an uplink with a default route."""
        with open(f"/proc/sys/net/ipv4/conf/{self.cable}/forwarding", "w") as file:
            file.write("1")

    def ask(self, address: str, port: int, seconds: float = ANSWER_SECONDS) -> str:
        """The answer of a server to this machine. ``seconds``: a few, where nothing may answer."""
        line = ["ip", "netns", "exec", self.name, sys.executable, "-c", CLIENT, address, str(port), str(seconds)]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()

    def remove(self) -> None:
        """Remove the machine and its cable."""
        subprocess.run(["ip", "netns", "del", self.name], check=False)


@pytest.fixture
def machine(fleet: Fleet) -> Iterator[Machine]:
    """Another machine."""
    own = Machine(fleet.tag)
    try:
        own.forward()
        yield own
    finally:
        own.remove()


def ask(address: str, port: int) -> str:
    """The answer of a server to the host itself; empty if there is none."""
    try:
        with socket.create_connection((address, port), timeout=ANSWER_SECONDS) as connection:  # what is refused is so at once
            return connection.recv(200).decode()
    except OSError:
        return ""


def answers(port: int, wanted: dict[str, bool]) -> bool:
    """Whether a port of the host answers at just those of its addresses that it should."""
    return {address: bool(ask(address, port)) for address in wanted} == wanted


def runs_anew(fleet: Fleet, name: str, before: int) -> bool:
    return fleet.record(name)["pid"] not in (None, before)


def names(answers: Iterator[str]) -> set[str]:
    return {answer.split()[0] for answer in answers if answer}


def test_a_published_port_leads_to_its_container_from_everywhere(fleet: Fleet, machine: Machine, port: int) -> None:
    name, other = fleet.name(1), fleet.name(2)
    fleet.ok("create", name, "-p", f"{port}:8080", *SERVE)
    fleet.create(other)
    assert fleet.record(name)["publish"] == [f"{port}:8080/tcp"]
    assert f"{port}->8080" in fleet.ok("list")
    until(lambda: ask("127.0.0.1", port), what="the host itself reaches the container")
    # The container sees another machine with that machine's own address, and the host with the host's.
    assert machine.ask(machine.host, port) == f"{name} ::ffff:{machine.own}"
    assert ask(machine.host, port) == f"{name} ::ffff:{machine.host}"
    gateway = ask("127.0.0.1", port).split()[1].removeprefix("::ffff:")
    address6 = fleet.record(name)["addresses"][1:]
    if address6:
        bridge6 = address6[0].partition("::")[0] + "::1"
        until(lambda: ask(bridge6, port).startswith(name), what="the container has checked that its IPv6 address is unique")
    # The kernel does not route ::1. A connection to it is refused at once, so that clients go on to 127.0.0.1.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", port), timeout=2)
    # Another container reaches the port by way of the host, and so does the container itself.
    for inside in (other, name):
        said = fleet.ok("exec", inside, "--", "python3", "-c", CLIENT, machine.host, str(port), str(ANSWER_SECONDS))
        assert said.split()[0] == name, inside
        said = fleet.ok("exec", inside, "--", "python3", "-c", CLIENT, gateway, str(port), str(ANSWER_SECONDS))
        assert said.split()[0] == name, inside
    # The other machine reaches neither the container's own address nor another port of the host.
    assert machine.ask(fleet.record(name)["addresses"][0], 8080, 2).startswith("!")
    assert machine.ask(machine.host, port ^ 1, 2).startswith("!")

    if address6:
        for where, reached in (("[::]", [False, True]), (f"[{bridge6}]", [False, True]), ("0.0.0.0", [True, False])):
            fleet.ok("set", name, f"publish={where}:{port}:8080")
            until(partial(answers, port, {machine.host: reached[0], bridge6: reached[1]}), what=where)
        fleet.ok("set", name, f"publish={port}:8080")
        until(lambda: ask("127.0.0.1", port) and ask(bridge6, port), what="it is at all addresses again")

    fleet.ok("stop", name)
    assert ask("127.0.0.1", port) == ""
    assert machine.ask(machine.host, port, 2).startswith("!")
    fleet.ok("start", name)
    until(lambda: ask("127.0.0.1", port), what="the container is back")


def test_a_group_shares_a_port(fleet: Fleet, machine: Machine, port: int) -> None:
    prefix = fleet.prefix.rstrip("-")
    fleet.ok("create", prefix, "-n", "3", "-l", "role=web", "-p", f"{port}:8080", "-p", f"{port}:8080/udp", *SERVE)
    members = {record["name"] for record in fleet.records()}

    def behind() -> set[str]:
        return names(ask("127.0.0.1", port) for _ in range(60))

    until(lambda: behind() == members, what="all members are behind the port")
    shares = Counter(ask("127.0.0.1", port).split()[0] for _ in range(300))
    assert min(shares.values()) > 50
    assert machine.ask(machine.host, port).split()[0] in members

    one, two, three = sorted(members)
    fleet.ok("stop", one)
    assert behind() == {two, three}
    fleet.ok("freeze", two)
    assert behind() == {three}
    fleet.ok("unfreeze", two)
    until(lambda: behind() == {two, three}, what="the thawed container is behind the port again")
    fleet.ok("create", fleet.name("x"), "-l", "role=web", "-l", "tier=new", "-p", f"{port}:8080", *SERVE)
    until(lambda: behind() == {two, three, fleet.name("x")}, what="a container that comes later joins the group")

    # Connections go on while the daemon is restarted.
    fleet.stop_daemon(9)
    assert behind() == {two, three, fleet.name("x")}
    fleet.start_daemon()
    assert behind() == {two, three, fleet.name("x")}

    # With affinity, one client is served by one member, and by another one only while that is away.
    fleet.ok("set", "-l", "role=web", "affinity=client")
    until(lambda: len(behind()) == 1, what="one member serves this client")
    (own,) = behind()
    fleet.ok("stop", own)
    assert len(behind() - {own}) == len(behind()) == 1
    fleet.ok("start", own)
    until(lambda: behind() == {own}, what="its member is back")


def test_what_backs_off_or_was_given_up_serves_nobody(fleet: Fleet, port: int) -> None:
    """At once it is unhealthy, and neither its group's name nor its group's port lead to it."""
    asker, stays, backs_off, gives_up = (fleet.name(word) for word in ("q", "s", "b", "g"))
    fleet.create(asker)
    for name, policy in ((stays, "no"), (backs_off, "always delay=100 max_delay=100"), (gives_up, "always attempts=1")):
        fleet.ok("create", name, "--restart", policy, "-l", "role=web", "-p", f"{port}:8080", *SERVE)

    def found() -> set[str]:
        lines = fleet.run("exec", asker, "--", "getent", "ahostsv4", f"web.role.{fleet.tag}.test").out.splitlines()
        return {line.split()[0] for line in lines}

    until(lambda: names(ask("127.0.0.1", port) for _ in range(30)) == {stays, backs_off, gives_up}, 20)
    until(lambda: len(found()) == 3, what="the name server knows all")
    for name in (backs_off, gives_up):
        first = fleet.pid(name)
        os.kill(first, signal.SIGKILL)
        until(partial(runs_anew, fleet, name, first), 20, "the first start comes at once")
        os.kill(fleet.pid(name), signal.SIGKILL)
    until(lambda: {fleet.state(backs_off), fleet.state(gives_up)} == {"backoff", "failed"}, 20)
    assert [fleet.record(name)["health"] for name in (backs_off, gives_up)] == ["unhealthy", "unhealthy"]
    assert names(ask("127.0.0.1", port) for _ in range(30)) == {stays}
    until(lambda: found() == set(fleet.record(stays)["addresses"][:1]), what="the name server knows it, too")


def test_a_restart_of_all_with_drain_is_no_outage(fleet: Fleet, port: int) -> None:
    """From its begin to its end: the last member stays until another one is back and its program listens."""
    prefix = fleet.prefix.rstrip("-")
    fleet.ok("create", prefix, "-n", "2", "-l", "role=web", "-p", f"{port}:8080", "--drain", "0.5", *SERVE)
    until(lambda: len(names(ask("127.0.0.1", port) for _ in range(20))) == 2, what="both members answer")
    before = {record["name"]: record["pid"] for record in fleet.records()}
    with fleet.spawn("restart", "--all", "-q") as restart:
        asked = 0
        while restart.poll() is None:
            # A busy machine may answer late, but the kernel never asks twice more, three seconds after the first time.
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                assert connection.recv(200), asked
                assert int.from_bytes(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)[100:], "little") < 2
            asked += 1
            time.sleep(0.005)
        assert restart.returncode == 0
    assert asked > 50
    assert all(record["pid"] != before[record["name"]] for record in fleet.records())
    until(lambda: len(names(ask("127.0.0.1", port) for _ in range(20))) == 2, what="both members answer")


def test_datagrams_go_elsewhere_when_a_member_leaves(fleet: Fleet, port: int) -> None:
    prefix = fleet.prefix.rstrip("-")
    fleet.ok("create", prefix, "-n", "2", "-l", "role=dns", "-p", f"{port}:8080/udp", *SERVE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        client.settimeout(1)

        def said() -> str:
            try:
                client.send(b"?")
                return client.recv(100).decode()
            except OSError:
                return ""

        first = until(said, what="an answer")
        fleet.ok("stop", first)
        # An answer that was late may come first.
        until(lambda: said() not in ("", first), what="an answer of the other member")


def test_a_client_that_keeps_sending_is_served_again(fleet: Fleet, port: int) -> None:
    """The kernel remembers the client's flow, and each datagram renews that. The port's members come, go and come back."""
    name = fleet.name(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)

        def served() -> bool:
            with contextlib.suppress(OSError):
                client.sendto(b"?", ("127.0.0.1", port))
                return client.recv(100).decode() == name
            time.sleep(0.1)
            return False

        assert not served()  # the flow begins before the port is published
        fleet.ok("create", name, "-p", f"{port}:8080/udp", *SERVE)
        until(served, what="the client is served once there is a member")
        stopped = threading.Event()

        def keep_sending() -> None:
            while not stopped.wait(0.1):
                with contextlib.suppress(OSError):
                    client.sendto(b"?", ("127.0.0.1", port))

        for before, after in ((("freeze", name), ("unfreeze", name)), (("stop", name), ("start", name))):
            sender = threading.Thread(target=keep_sending)
            stopped.clear()
            sender.start()
            fleet.ok(*before)
            time.sleep(0.5)
            fleet.ok(*after)
            stopped.set()
            sender.join()
            until(served, what=f"the client is served after {after[0]}")
        os.kill(fleet.record(name)["pid"], signal.SIGKILL)
        until(lambda: not served(), what="no member serves the client")
        until(lambda: fleet.record(name)["state"] == "failed", what="the daemon sees that the container ended")
        fleet.ok("start", name)
        until(served, what="the client is served after a kill")


def test_a_connection_that_a_member_did_not_answer_goes_to_another(fleet: Fleet, port: int) -> None:
    """The client asks again a second later, and the kernel sent that to the member that had left, until it gave up."""
    one, two = fleet.name("w1"), fleet.name("w2")
    fleet.ok("create", fleet.name("w"), "-n", "2", "-l", "role=web", "-p", f"{port}:8080", *SERVE)
    until(lambda: names(ask("127.0.0.1", port) for _ in range(20)) == {one, two}, what="both members answer")
    fleet.ok("exec", one, "--", "ip", "link", "set", "eth0", "down")
    # As long as the host knows its MAC address, it sends what is for it.
    address = fleet.record(one)["addresses"][0]
    known = [address, "lladdr", hardware_address(IPv4Address(address)), "dev", fleet.bridge, "nud", "permanent"]
    subprocess.run(["ip", "neigh", "replace", *known], check=True)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(20)]
        for each in clients:
            each.setblocking(False)
            assert each.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        fleet.ok("freeze", one)  # upon which it is led to no longer
        for each in clients:
            each.settimeout(ANSWER_SECONDS)
            assert each.recv(200).decode().split()[0] == two


def test_ports_that_can_not_be_published_are_refused(fleet: Fleet, port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = taken.getsockname()[1]
        refused = fleet.run("create", fleet.name(1), "-p", f"{used}:80", *SLEEP)
    assert (refused.status, f"port {used}/tcp is in use" in refused.err) == (2, True)
    assert f"by {Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})" in refused.err
    refused = fleet.run("create", fleet.name(1), "-p", f"192.0.2.77:{port}:80", *SLEEP)
    assert (refused.status, "does not have the address" in refused.err) == (2, True)
    refused = fleet.run("create", fleet.prefix.rstrip("-"), "-n", "2", "-p", f"{port}:80", *SLEEP)
    assert (refused.status, "label in common" in refused.err) == (2, True)
    refused = fleet.run("create", fleet.name(1), "--network", "none", "-p", f"{port}:80", *SLEEP)
    assert (refused.status, "has no ports of its own" in refused.err) == (2, True)
    foreign = f"table inet lxcfleet_{fleet.tag}other"
    rule = f"tcp dport {port} dnat ip to numgen random mod 1 map {{ 0 : 192.0.2.1 }} : 80"
    subprocess.run(["nft", "-f", "-"], input=f"{foreign} {{\nchain published {{\n{rule}\n}}\n}}\n".encode(), check=True)
    try:
        refused = fleet.run("create", fleet.name(1), "-p", f"{port}:80", *SLEEP)
    finally:
        subprocess.run(["nft", f"delete {foreign}"], check=True)
    assert (refused.status, f"the fleet of the bridge {fleet.tag}other publishes it" in refused.err) == (2, True)
    assert fleet.ok("list", "-q") == ""

    fleet.create(fleet.name(1), options=("-p", f"{port}:80", "-l", "role=web"))
    refused = fleet.run("create", fleet.name(2), "-l", "role=db", "-p", f"{port}:80", *SLEEP)
    assert (refused.status, "no label in common" in refused.err) == (2, True)
    refused = fleet.run("create", fleet.name(2), "-l", "role=web", "-p", f"{port}:81", *SLEEP)
    assert (refused.status, "is published already" in refused.err) == (2, True)
    fleet.create(fleet.name(2), options=("-p", f"{port}:80", "-l", "role=web", "--no-start"))
    assert fleet.ok("list", "-q").split() == [fleet.name(1), fleet.name(2)]


def test_a_port_published_on_loopback_is_for_the_host_alone(fleet: Fleet, machine: Machine, port: int) -> None:
    fleet.ok("create", fleet.name(1), "-p", f"127.0.0.1:{port}:8080", *SERVE)
    until(lambda: ask("127.0.0.1", port), what="the host itself reaches the container")
    assert machine.ask(machine.host, port, 2).startswith("!")


def test_an_interface_that_comes_later_leads_to_published_ports(fleet: Fleet, port: int) -> None:
    """So do the host's network at boot, a card that gets its address by DHCP, and an interface without a default route."""
    fleet.ok("create", fleet.name(1), "-p", f"{port}:8080", *SERVE)
    until(lambda: ask("127.0.0.1", port), what="the host itself reaches the container")
    late = Machine(fleet.tag)
    try:
        until(lambda: late.ask(late.host, port, 2).startswith(fleet.name(1)), 15, "the other machine reaches it")
        assert not fleet.events("repaired")
    finally:
        late.remove()


def test_a_fleet_without_ipv6_has_all_but_that(fleet: Fleet, port: int) -> None:
    """Addresses, names, published ports and restarts are as ever; what names an IPv6 address is refused."""
    fleet.settings(f"network: {{bridge: {fleet.bridge}, domain: {fleet.tag}.test, drain: 0, ipv6: none}}\n")
    fleet.stop_daemon()
    fleet.start_daemon()
    one, two = fleet.name("one"), fleet.name("two")
    fleet.ok("create", one, "-l", "role=web", "-p", f"{port}:8080", *SERVE)
    fleet.create(two)
    assert [":" in each for each in fleet.record(one)["addresses"]] == [False]
    until(lambda: ask("127.0.0.1", port), what="the published port answers")
    found = fleet.inside(two, f"getent ahosts {one}.{fleet.tag}.test | cut -d' ' -f1 | sort -u")
    assert found.split() == fleet.record(one)["addresses"]
    fleet.ok("restart", one)
    until(lambda: ask("127.0.0.1", port), what="and after a restart")
    refused = fleet.run("create", fleet.name("six"), "-p", f"[2001:db8::1]:{port}:8080", *SLEEP)
    assert (refused.status, "no IPv6 addresses" in refused.err) == (2, True), refused.err


def test_no_container_reaches_the_hosts_loopback(fleet: Fleet, port: int) -> None:
    fleet.create(fleet.name(1), options=("-p", f"{port}:8080"))
    with socket.create_server(("127.0.0.1", 0)) as secret:
        number = secret.getsockname()[1]
        # The container sends a packet to 127.0.0.1 on the wire: by an extra route, past its own loopback.
        script = f"""
ip route del local 127.0.0.0/8 dev lo table local; ip route del local 127.0.0.1 dev lo table local
sysctl -qw net.ipv4.conf.all.route_localnet=1
ip route add 127.0.0.1 via $(ip route show default | cut -d' ' -f3) dev eth0 src $(hostname -I | cut -d' ' -f1)
timeout 3 python3 -c 'import socket; socket.create_connection(("127.0.0.1", {number}), 2)' && echo reached"""
        assert "reached" not in fleet.run("exec", fleet.name(1), "--", "sh", "-c", script).out
