"""Addresses, names and the bridge, on the real kernel with the real dnsmasq and nft."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address, ip_interface
from pathlib import Path

import pytest

from lxcfleet.host.net import dnsmasq
from lxcfleet.network.rules import rules
from lxcfleet.spec.container.addresses import hardware_address, interface_name
from lxcfleet.spec.reading.terms import MAX_MBIT

from . import behind_the_name_server
from .harness import CLIENT, DAEMON, SLEEP, TIMEOUT, Fleet, alive, free_port, source, until

pytestmark = pytest.mark.system

EAGER = "tests.system.eager_daemon"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """A fleet whose containers are connected by default. Bridge and rules are removed with its last container."""
    own = Fleet()
    own.settings(f"network: {{bridge: {own.bridge}, domain: {own.tag}.test, drain: 0}}\n")
    try:
        own.start_daemon(module=EAGER)
        yield own
        own.clean()
        assert not os.path.exists(f"/sys/class/net/{own.bridge}")
        until(lambda: own.bridge not in tables(), what="the rules are removed")  # just after the bridge
    finally:
        own.run("destroy", "--all", "--force", "-q")
        own.remove()


def tables() -> str:
    """The tables of nftables."""
    return subprocess.run(["/usr/sbin/nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def addresses(fleet: Fleet) -> dict[str, list[str]]:
    """Each container's addresses."""
    return {record["name"]: record["addresses"] for record in fleet.records()}


def lookup(fleet: Fleet, inside: str, name: str) -> set[str]:
    """The addresses that a container's own resolver finds for a name."""
    found = fleet.run("exec", inside, "--", "getent", "ahosts", name)
    assert found.status in (0, 2), found  # 2: getent found nothing
    return {line.split()[0] for line in found.out.splitlines()}


def name_server(fleet: Fleet) -> str:
    """The address of the name server, which the bridge has."""
    lines = subprocess.run(["ip", "-br", "-4", "addr", "show", fleet.bridge], capture_output=True, text=True, check=True)
    return lines.stdout.split()[2].partition("/")[0]


def link_local(fleet: Fleet) -> str:
    """The bridge's address that the kernel gave it."""
    asked = ["ip", "-br", "-6", "addr", "show", fleet.bridge, "scope", "link"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()[2].partition("/")[0]


def services(server: str, name: str) -> set[str]:
    """The SRV records of a name, as ``PORT TARGET``."""
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    question = labels + struct.pack("!BHH", 0, 33, 1)
    options = struct.pack("!BHHIH", 0, 41, 8192, 0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        message = b""
        for _ in range(12):  # as any resolver: on a busy machine a datagram may be lost
            client.sendto(struct.pack("!6H", 1, 0x100, 1, 0, 0, 1) + question + options, (server, 53))
            with contextlib.suppress(TimeoutError):
                message = client.recv(65535)
                break
    assert message, f"no answer of {server}"
    found = set()
    at = 12 + len(question)
    for _ in range(struct.unpack_from("!H", message, 6)[0]):
        assert message[at] >= 192  # a pointer to the question
        size, _, _, port = struct.unpack_from("!4H", message, at + 10)
        target, end = message[at + 18 : at + 12 + size], ""
        while target[0]:
            end += target[1 : 1 + target[0]].decode() + "."
            target = target[1 + target[0] :]
        found.add(f"{port} {end.rstrip('.')}")
        at += 12 + size
    return found


def pid_in(file: Path) -> int:
    """The pid in a pid file; 0 while it is about to be written."""
    try:
        return int(file.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def noted_pid(file: Path, other_than: int = 0) -> int:
    """The pid in a pid file, once there is one other than that."""
    return int(until(lambda: (pid := pid_in(file)) not in (0, other_than) and pid, 15, f"another pid is in {file.name}"))


def test_containers_have_addresses_and_names(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two, options=("-l", "role=web"))
    before = addresses(fleet)
    assert before[one] != before[two]
    domain = f"{fleet.tag}.test"
    until(lambda: lookup(fleet, one, f"{two}.{domain}") == set(before[two]))
    until(lambda: lookup(fleet, one, two) == set(before[two]))
    until(lambda: lookup(fleet, one, f"web.role.{domain}") == {*before[one], *before[two]})
    assert fleet.ok("exec", one, "--", "getent", "hosts", before[two][0]).split()[1] == f"{two}.{domain}"
    fleet.ok("set", two, "aliases=db,cache.shop")
    until(lambda: lookup(fleet, one, "db") == lookup(fleet, one, f"cache.shop.{domain}") == set(before[two]))
    fleet.ok("set", two, "aliases=")
    until(lambda: not lookup(fleet, one, "db"), what="a name that was taken away is withdrawn")

    fleet.ok("stop", two)
    until(lambda: not lookup(fleet, one, two), what="the name of a stopped container is withdrawn")
    until(lambda: lookup(fleet, one, f"web.role.{domain}") == set(before[one]))
    fleet.ok("start", two)
    until(lambda: lookup(fleet, one, two), what="the name is back")
    assert addresses(fleet) == before

    chosen = ip_address(before[two][0]) + 300
    fleet.ok("set", two, f"static_addresses={chosen}")
    until(lambda: str(chosen) in lookup(fleet, one, two), what="the chosen address is known by name")
    assert set(addresses(fleet)[two]).isdisjoint(before[two])
    with pytest.raises(ConnectionRefusedError):  # so it is there
        socket.create_connection((str(chosen), 9), 60)
    refused = fleet.run("create", fleet.name(3), "--address", str(chosen), "--", "true")
    assert (refused.status, f"{two} has it" in refused.err) == (2, True), refused


def test_a_container_that_has_just_started_is_reached_by_name_at_once(fleet: Fleet) -> None:
    """No client waits for an address that does not answer yet, and both addresses answer at once."""
    one, two = fleet.name(1), fleet.name(2)
    server = "import socket\ns = socket.create_server(('', 8080), family=socket.AF_INET6, dualstack_ipv6=True)\n"
    fleet.create(one)
    entries = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    own = [int(flags, 16) for _, _, _, scope, flags, name in entries if (scope, name) == ("00", fleet.bridge)]
    assert [flags & 0x40 for flags in own] == [0]  # the host's own is not tentative
    fleet.ok("create", two, "--", "python3", "-c", server + "while True: s.accept()[0].close()")
    client = f"""
import socket, time
begun = time.monotonic(); connected = resent = 0
while time.monotonic() - begun < 6:
    try:
        with socket.create_connection(("{two}", 8080), 5) as c:
            resent += int.from_bytes(c.getsockopt(6, socket.TCP_INFO, 104)[100:], "little")  # tcpi_total_retrans
        connected += 1
    except OSError:
        pass
    time.sleep(.05)
print(connected, resent)"""
    with fleet.spawn("exec", one, "--", "python3", "-c", client) as asks:
        fleet.ok("restart", two, "--drain", "0")
        said, _ = asks.communicate(timeout=TIMEOUT)
    connected, resent = map(int, said.split())
    assert (connected > 0, resent) == (True, 0), "the kernel asks for a connection once more after a second without an answer"
    fleet.ok("restart", two, "--drain", "0")
    table = Path(f"/proc/{fleet.pid(two)}/net/if_inet6").read_text().split()
    assert {int(flags, 16) & 0x40 for flags in table[4::6]} == {0}  # none is tentative
    until(lambda: lookup(fleet, one, two) == set(addresses(fleet)[two]), what="the IPv6 address is found, too")


def test_a_container_knows_the_broadcast_address_of_its_network(fleet: Fleet) -> None:
    fleet.create(fleet.name(1))
    line = fleet.inside(fleet.name(1), "ip -o -4 addr show eth0").split()
    network = ip_interface(line[line.index("inet") + 1]).network
    assert line[line.index("brd") + 1] == str(network.broadcast_address)


def test_the_bridge_keeps_its_mtu_while_no_container_runs(fleet: Fleet) -> None:
    """On a host whose uplink has another MTU than 1500, it was 1500 after the only container's stop, and so was the
    container's after its next start."""
    one = fleet.name(1)
    fleet.create(one)
    file = Path(f"/sys/class/net/{fleet.bridge}/mtu")
    before = file.read_text()
    fleet.ok("stop", one)
    assert file.read_text() == before
    fleet.ok("start", one)
    assert fleet.inside(one, "cat /sys/class/net/eth0/mtu") == before.strip()
    assert fleet.events("repaired") == []


def test_the_name_of_a_group_leaves_out_frozen_containers(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two, options=("-l", "role=web"))
    group = f"web.role.{fleet.tag}.test"
    both = addresses(fleet)
    fleet.ok("freeze", two)
    until(lambda: lookup(fleet, one, group) == set(both[one]), what="the group is without the frozen container")
    until(lambda: lookup(fleet, one, two) == set(both[two]))
    fleet.stop_daemon(signal.SIGKILL)
    fleet.start_daemon()
    until(lambda: lookup(fleet, one, group) == set(both[one]))
    fleet.ok("unfreeze", two)
    until(lambda: lookup(fleet, one, group) == {*both[one], *both[two]}, what="the container is back in its group")


def test_the_name_of_a_group_follows_what_lxc_itself_does_to_its_members(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two, options=("-l", "role=web"))
    group, both = f"web.role.{fleet.tag}.test", addresses(fleet)
    everyone = {*both[one], *both[two]}
    fleet.ok("freeze", two)
    until(lambda: lookup(fleet, one, group) == set(both[one]))
    plain(fleet, "lxc-unfreeze", two)
    until(lambda: lookup(fleet, one, group) == everyone, 15, "the daemon sees that the container was thawed")
    plain(fleet, "lxc-freeze", two)
    until(lambda: lookup(fleet, one, group) == set(both[one]), 15, "the daemon sees that the container was frozen")

    fleet.stop_daemon(signal.SIGKILL)
    plain(fleet, "lxc-unfreeze", two)
    fleet.start_daemon()
    until(lambda: lookup(fleet, one, group) == everyone)

    fleet.ok("freeze", two)
    plain(fleet, "lxc-stop", two, "-k")
    until(lambda: fleet.record(two)["pid"] is None, what="the daemon sees that the container ended")
    fleet.ok("start", two)
    until(lambda: lookup(fleet, one, group) == everyone, what="the container is back in its group")


def plain(fleet: Fleet, command: str, name: str, *options: str) -> None:
    """Run one of LXC's own commands."""
    subprocess.run([command, "-P", str(fleet.paths.lxc), "-n", name, *options], check=True)


def test_a_container_that_plain_lxc_start_began_has_all_of_the_network(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, options=("-l", "role=web"))
    server = "import socket; s=socket.create_server(('',7))\nwhile 1: c,a=s.accept(); c.send(b'two'); c.close()"
    port = free_port()
    options = ("-l", "role=web", "--isolated", "-p", f"{port}:7", "--no-start", "--drain", "0")
    fleet.ok("create", two, *options, "--", "python3", "-c", server)
    group, domain = f"web.role.{fleet.tag}.test", f"{fleet.tag}.test"
    before = addresses(fleet)[one]
    for _ in range(2):
        plain(fleet, "lxc-start", two)
        until(lambda: len(lookup(fleet, one, group)) > len(before), 15, "the container is in its group")
        until(lambda: lookup(fleet, one, f"{two}.{domain}") == set(addresses(fleet)[two]))
        until(lambda: _read("127.0.0.1", port) == "two", 15, "the port is published")
        port_of_two = Path("/sys/class/net") / lxc_port(addresses(fleet)[two][0]) / "brport"
        for switch in (port_of_two / "isolated", port_of_two / "hairpin_mode"):
            until(lambda switch=switch: switch.read_text() == "1\n", what=str(switch))  # type: ignore[misc]
        switch_of_ipv6 = Path("/proc/sys/net/ipv6/conf") / port_of_two.parent.name / "disable_ipv6"
        if switch_of_ipv6.exists():  # a kernel without IPv6 has none
            until(lambda file=switch_of_ipv6: file.read_text() == "1\n", what="no address at it")  # type: ignore[misc]
        plain(fleet, "lxc-stop", two, "-k")
        until(lambda: lookup(fleet, one, group) == set(before), 15, "the container is taken out of its group")
        assert _read("127.0.0.1", port) == ""


def lxc_port(address: str) -> str:
    """The port of the bridge that belongs to the container with this address."""
    return interface_name(IPv4Address(address))


def test_a_container_that_is_to_be_stopped_leaves_dns_first(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two, options=("-l", "role=web", "--drain", "600"))
    pid = fleet.pid(two)
    stop = fleet.spawn("stop", two)
    until(lambda: not lookup(fleet, one, two), what="the name of the container is withdrawn")
    assert fleet.record(two)["pid"] == pid
    until(lambda: lookup(fleet, one, f"web.role.{fleet.tag}.test") == set(addresses(fleet)[one]))
    assert "wait for its drain time" in fleet.ok("stop", two, "--dry-run")
    os.kill(pid, signal.SIGKILL)  # the stop does not wait for a container that has ended
    assert stop.wait(TIMEOUT) == 0
    assert fleet.state(two) == "stopped"
    began = fleet.pid(one)
    fleet.ok("restart", one, "--drain", "0")
    assert fleet.pid(one) != began
    until(lambda: lookup(fleet, one, one) == set(addresses(fleet)[one]))
    fleet.ok("destroy", "--all", "--force", "--drain", "0")


def test_declared_ports_are_found_by_the_name_of_their_service(fleet: Fleet) -> None:
    one, two, domain = fleet.name(1), fleet.name(2), f"{fleet.tag}.test"
    fleet.create(one, two, options=("-l", "role=web", "--port", "http=8080", "--port", "dns=53/udp", "--drain", "0"))
    assert fleet.record(one)["ports"] == ["http=8080/tcp", "dns=53/udp"]
    group, server = f"_http._tcp.web.role.{domain}", name_server(fleet)
    assert services(server, group) == {f"8080 {one}.{domain}", f"8080 {two}.{domain}"}
    assert services(server, f"_dns._udp.{two}.{domain}") == {f"53 {two}.{domain}"}
    fleet.ok("stop", two)
    assert services(server, group) == {f"8080 {one}.{domain}"}
    fleet.ok("start", two)
    assert len(services(server, group)) == 2

    # Clients are answered without the daemon. A responder that was started anew answers, too.
    fleet.stop_daemon(signal.SIGKILL)
    assert len(services(server, group)) == 2
    fleet.start_daemon()
    old = noted_pid(fleet.paths.responder_pid)
    os.kill(old, signal.SIGKILL)
    noted_pid(fleet.paths.responder_pid, old)
    until(lambda: fleet.events("repaired"), what="an event tells the repair")
    assert "SRV" in fleet.events("repaired")[0]["message"]
    assert len(services(server, group)) == 2


def test_a_group_of_two_hundred_is_one_answer(fleet: Fleet) -> None:
    fleet.paths.hosts.mkdir(exist_ok=True)
    fleet.create(fleet.name(1))
    domain = f"{fleet.tag}.test"
    for number in range(200):
        # The records as the daemon writes them: two hundred real containers would prove no more.
        lines = f"10.0.0.{number} c{number}.{domain}\n#srv _x._tcp.a.b.{domain} {number + 1} c{number}.{domain}\n"
        (fleet.paths.hosts / f"c{number}").write_text(lines)
    assert len(services(name_server(fleet), f"_x._tcp.a.b.{domain}")) == 200


def test_no_client_ends_the_server_of_srv_records(fleet: Fleet) -> None:
    """Any user of the host reaches it. It was once ended by a query for ANY about a group of 60, and by a 65th TCP client."""
    fleet.paths.hosts.mkdir(exist_ok=True)
    fleet.create(fleet.name(1))
    pid, domain = noted_pid(fleet.paths.responder_pid), f"{fleet.tag}.test"
    for number in range(60):
        lines = f"10.0.0.{number} c{number}.{domain} a.b.{domain}\n#srv a.b.{domain} {number + 1} c{number}.{domain}\n"
        (fleet.paths.hosts / f"c{number}").write_text(lines)
    address = (str(dnsmasq.responder_address(IPv4Address(name_server(fleet)))), dnsmasq.RESPONDER_PORT)
    labels = b"".join(bytes((len(label),)) + label.encode() for label in f"a.b.{domain}".split("."))
    question = struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 255, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.connect(address)
        client.send(b"\xff" * 500)
        client.send(question)
        message = client.recv(65535)
        flags, _, answers = struct.unpack_from("!3H", message, 2)
        assert (flags & 0x820F, len(message) <= 512) == (0x8200, True)
        assert answers > 20
    with contextlib.ExitStack() as clients:
        for _ in range(80):
            last = clients.enter_context(socket.create_connection(address, 60))
        last.sendall(struct.pack("!H", len(question)) + question)
        reply = last.makefile("rb")
        size = struct.unpack("!H", reply.read(2))[0]
        assert struct.unpack_from("!H", reply.read(size), 6)[0] == 120
    assert pid_in(fleet.paths.responder_pid) == pid
    assert alive(pid)
    assert not fleet.events("repaired")


def _hold_streams(address: str, who: str) -> None:
    """Connect forty times to a name server, send the beginning of a question, and stay; says how many were taken."""
    import contextlib
    import os
    import socket

    held = []
    for number in range(40):
        # users: of a container that has the host's network, where it can be thousands of users.
        user = {"guest": 0, "user": 60001, "users": 200001 + number}[who]
        os.seteuid(0)
        os.seteuid(user)
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((address, 53), 3))
            held[-1].send(b"\xff\xff")
    print(len(held), flush=True)
    input()


def _ask_over_tcp(address: str, name: str) -> None:
    """Ask a name server over TCP for an address; fails without one."""
    import socket
    import struct

    labels = b"".join(bytes((len(word),)) + word.encode() for word in name.split("."))
    question = struct.pack("!6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1)
    with socket.create_connection((address, 53), 60) as server:
        server.sendall(struct.pack("!H", len(question)) + question)
        with server.makefile("rb") as answer:
            assert struct.unpack("!H", answer.read(10)[8:]) == (1,)


def test_nobody_takes_the_name_server_over_tcp_from_others(fleet: Fleet) -> None:
    """dnsmasq has a process for each client over TCP, twenty of them at most, and waits for minutes for their questions."""
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two)
    server = name_server(fleet)
    ask = ("--", "python3", "-c", source(_ask_over_tcp, (server, f"{two}.{fleet.tag}.test")))
    code = f"{inspect.getsource(_hold_streams)}\nimport sys\n_hold_streams(*sys.argv[1:])"
    hold = ["/usr/bin/python3", "-c", code, server]
    near = [part if part != server else f"{link_local(fleet)}%{fleet.bridge}" for part in hold]
    guest = [CLIENT, "exec", one, "--", *hold, "guest"]
    for command in (guest, [*hold, "user"], [*hold, "users"], [*near, "user"], [*near, "users"]):
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=fleet.environment()
        ) as crowd:
            assert crowd.stdout is not None
            assert 1 <= int(crowd.stdout.readline()) <= rules.MOST_STREAMS
            fleet.ok("exec", two, *ask)
            crowd.communicate("\n", timeout=TIMEOUT)
    # The places are free again once their clients have gone.
    until(lambda: fleet.run("exec", one, *ask).status == 0, 10, "it is answered")


def test_users_of_the_host_do_not_reach_what_the_name_server_asks(fleet: Fleet) -> None:
    """2,000 datagrams a second of one user took single answers from others."""
    name, domain = fleet.name(1), f"{fleet.tag}.test"
    fleet.create(name, options=("--port", "http=8080"))
    behind_the_name_server.ask(name_server(fleet))
    # The name server itself reaches it: these records are nowhere else.
    assert services(name_server(fleet), f"_http._tcp.{name}.{domain}") == {f"8080 {name}.{domain}"}


def _flood(address: str, domain: str) -> None:
    """Send many questions that the name server has to pass on, and take no answer."""
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
        asks.connect((address, 53))
        for number in range(20_000):
            words = [f"_x{number:05}", "_tcp", *domain.split(".")]
            labels = b"".join(bytes((len(word),)) + word.encode() for word in words)
            asks.send(struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 33, 1))


def _ask_often(address: str, name: str) -> None:
    """Ask for an address twenty times; fails if that is refused."""
    import contextlib
    import socket
    import struct

    labels = b"".join(bytes((len(word),)) + word.encode() for word in name.split("."))
    for number in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asks:
            asks.settimeout(5)
            asks.connect((address, 53))
            for _ in range(12):  # as any resolver: on a busy machine a datagram may be lost
                asks.send(struct.pack("!6H", number, 0x100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, 1, 1))
                with contextlib.suppress(TimeoutError):
                    assert struct.unpack("!H", asks.recv(9000)[6:8]) == (1,)
                    break
            else:
                raise SystemExit("no answer")


def test_many_questions_of_one_container_take_no_answer_from_others(fleet: Fleet) -> None:
    """dnsmasq refused questions that have to be passed on where 150 waited for their answers."""
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two)
    server, domain = name_server(fleet), f"{fleet.tag}.test"
    flood = ["exec", one, "--", "python3", "-c", source(_flood, (server, domain))]
    with subprocess.Popen([CLIENT, *flood], env=fleet.environment()) as flooding:
        fleet.ok("exec", two, "--", "python3", "-c", source(_ask_often, (server, f"{two}.{domain}")))
        assert flooding.wait(TIMEOUT) == 0
    hardware = hardware_address(IPv4Address(addresses(fleet)[one][0]))
    limited = ["/usr/sbin/nft", "list", "set", "inet", rules.table(fleet.bridge), "asking_often"]
    assert f"{hardware} limit rate" in subprocess.run(limited, check=True, capture_output=True, text=True).stdout


def test_the_host_reaches_a_container_and_back(fleet: Fleet) -> None:
    name = fleet.name(1)
    server = "import socket; s=socket.create_server(('',7))\nwhile 1: c,a=s.accept(); c.send(a[0].encode()); c.close()"
    fleet.ok("create", name, "--", "python3", "-c", server)
    address = addresses(fleet)[name][0]
    said = until(lambda: _read(address, 7), what="the container answers")
    gateway = address.rsplit(".", 2)[0] + ".0.1"
    assert said == gateway


def _read(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(64).decode()
    except OSError:
        return ""


def test_a_bridge_and_a_name_server_that_were_taken_away_come_back(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two)
    bridge = fleet.bridge
    subprocess.run(["ip", "link", "del", bridge], check=True)
    ports = Path(f"/sys/class/net/{bridge}/brif")
    until(lambda: len([*ports.glob("*")]) == 2, 20, "the bridge is repaired, with both containers on it")
    until(lambda: len(fleet.events("repaired")) == 1, what="an event tells the repair")
    old = noted_pid(fleet.paths.dnsmasq_pid)
    os.kill(old, signal.SIGKILL)
    noted_pid(fleet.paths.dnsmasq_pid, old)
    until(lambda: lookup(fleet, one, two), 15, "the name server is repaired")
    until(lambda: len(fleet.events("repaired")) == 2, what="events tell both repairs")


def test_two_daemons_that_begin_at_once_choose_different_networks(fleet: Fleet) -> None:
    other = Fleet()
    other.settings(f"network: {{bridge: {other.bridge}, domain: {other.tag}.test, drain: 0}}\n")
    try:
        other.start_daemon()
        each = [own.spawn("create", own.name(1), *SLEEP) for own in (fleet, other)]
        assert [process.wait(TIMEOUT) for process in each] == [0, 0]
        ranges = [addresses(own)[own.name(1)][0].rsplit(".", 2)[0] for own in (fleet, other)]
        assert ranges[0] != ranges[1]
    finally:
        other.run("destroy", "--all", "--force", "-q", "--drain", "0")
        other.remove()


def test_a_network_of_which_a_name_server_is_left_is_not_chosen(fleet: Fleet) -> None:
    fleet.ok("create", fleet.name(1), *SLEEP)
    former = ip_address(addresses(fleet)[fleet.name(1)][0])
    fleet.ok("destroy", "--all", "--force", "-q", "--drain", "0")
    fleet.stop_daemon()  # the next one would choose the same network
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as left:
        left.bind((str(IPv4Address(b"\x7f" + former.packed[1:2] + b"\0\1")), dnsmasq.RESPONDER_PORT))
        fleet.ok("create", fleet.name(1), *SLEEP)
        assert ip_address(addresses(fleet)[fleet.name(1)][0]).packed[:2] != former.packed[:2]
        assert not fleet.events("no-names")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def test_changes_of_the_bridge_by_other_tools_are_repaired(fleet: Fleet) -> None:
    one, two, bridge = fleet.name(1), fleet.name(2), fleet.bridge
    fleet.create(one, two)
    where = addresses(fleet)[two]
    server, switch = name_server(fleet), Path(f"/proc/sys/net/ipv4/conf/{bridge}/forwarding")
    near = link_local(fleet)  # without it the host passes on no IPv6 from elsewhere: it can't ask who has an address
    until(lambda: lookup(fleet, one, two) == set(where), what="the IPv6 address of the container answers")
    for _ in range(2):  # of a switch that the daemon sees for the first time, it tells nothing
        switch.write_text("0\n")
        until(lambda: switch.read_text() == "1\n", what="the daemon switches forwarding on")
    until(lambda: any(f"forwarding for {bridge} was off" in each["message"] for each in fleet.events("repaired")))
    switch.write_text("0\n")
    ip("link", "set", interface_name(IPv4Address(where[0])), "nomaster")
    ip("addr", "flush", "dev", bridge)
    ip("link", "set", bridge, "down")
    # The daemon may look between two of these changes, and so tell them by several events.
    lost = (f"lost {server}", f"lost {near}")
    for part in (f"{bridge} was down", *lost, f"{two} was not on {bridge}", f"forwarding for {bridge} was off"):
        until(lambda part=part: any(part in each["message"] for each in fleet.events("repaired")), 15, part)  # type: ignore[misc]
    until(lambda: switch.read_text() == "1\n", what="forwarding is on again")
    until(lambda: lookup(fleet, one, two) == set(where), 15, "names are looked up again")
    assert link_local(fleet) == near


def test_a_port_set_down_another_mac_address_and_lost_rules_are_repaired(fleet: Fleet) -> None:
    one, two, bridge = fleet.name(1), fleet.name(2), fleet.bridge
    fleet.create(one, two)
    where = addresses(fleet)[two]
    until(lambda: lookup(fleet, one, two) == set(where), what="names are looked up")

    def told(part: str) -> None:
        until(lambda: any(part in each["message"] for each in fleet.events("repaired")), what=part)

    ip("link", "set", bridge, "address", "02:00:00:11:22:33")  # by which it is not known as lxcfleet's any more
    told(f"{bridge} had another MAC address")
    ip("link", "set", interface_name(IPv4Address(addresses(fleet)[one][0])), "down")
    told(f"the port of {one} was down")
    subprocess.run(["nft", "flush", "chain", "bridge", f"lxcfleet_{bridge}", "guard"], check=True)
    told("changed the packet filter's rules")
    assert "hardware" in subprocess.check_output(["nft", "list", "chain", "bridge", f"lxcfleet_{bridge}", "guard"], text=True)
    until(lambda: lookup(fleet, one, two) == set(where), what="names are looked up again")


def test_a_bridge_and_ports_that_other_tools_changed_are_as_they_were(fleet: Fleet) -> None:
    one, two, bridge = fleet.name(1), fleet.name(2), fleet.bridge
    fleet.create(one, two, options=("--isolated",))
    where = addresses(fleet)
    port, hardware = interface_name(IPv4Address(where[one][0])), hardware_address(IPv4Address(where[one][0]))
    network = f"{name_server(fleet).removesuffix('.1')}.0/16"

    def state() -> list[str]:
        """What does not change by itself."""
        entries = subprocess.check_output(["bridge", "fdb", "show", "br", bridge], text=True).splitlines()
        routes = subprocess.check_output(["ip", "route", "show", "dev", bridge], text=True)
        ports = subprocess.check_output(["bridge", "-d", "link", "show", "dev", port], text=True)
        words = subprocess.check_output(["ip", "-d", "link", "show", bridge], text=True).split()
        own = [f"{word} {words[words.index(word) + 1]}" for word in ("mtu", "stp_state", "mcast_querier", "mcast_snooping")]
        return [*own, routes, ports, *sorted(each for each in entries if each.endswith("static"))]

    def repaired() -> str:
        return " ".join(each["message"] for each in fleet.events("repaired"))

    before = state()
    for command, told in (
        (f"bridge link set dev {port} flood on", "set otherwise: flood"),
        (f"bridge link set dev {port} isolated off", "set otherwise: isolated"),
        (f"bridge link set dev {port} learning off mcast_flood off neigh_suppress on", "learning, mcast_flood, neigh_supp"),
        (f"bridge link set dev {port} state 0", "set otherwise: state"),
        (f"bridge fdb del {hardware} dev {port} master", f"did not know {one}"),
        (f"ip link set {port} mtu 1300", f"the port of {one} had the MTU 1300"),
        (f"ip link set {bridge} mtu 1350", f"{bridge} had the MTU 1350"),
        (f"ip link set {bridge} type bridge stp_state 1 mcast_querier 1", "multicast_querier on"),
        (f"ip link set {bridge} type bridge mcast_snooping 1", "multicast_snooping on"),
        (f"ip route del {network} dev {bridge}", f"{bridge} had no route to {network}"),
    ):
        subprocess.run(command.split(), check=True)
        until(lambda told=told: told in repaired(), what=told)  # type: ignore[misc]
        until(lambda: state() == before, what=f"undone: {command}")
    count = len(fleet.events("repaired"))
    fleet.ok("restart", one)
    assert lookup(fleet, one, two) == set(where[two])
    assert len(fleet.events("repaired")) == count


def test_whatever_another_program_changes_in_the_rules_is_undone(fleet: Fleet) -> None:
    one, bridge = fleet.name(1), fleet.bridge
    fleet.create(one)
    fleet.ok("set", one, "send_mbit=100")
    own, address = f"lxcfleet_{bridge}", IPv4Address(addresses(fleet)[one][0])
    port, hardware = interface_name(address), hardware_address(address)

    def rules() -> str:
        """Without what the filter itself has added."""
        found = subprocess.check_output(["nft", "-s", "list", "table", "bridge", own], text=True)
        return found + subprocess.check_output(["nft", "-s", "list", "chain", "inet", own, "forwarding"], text=True)

    until(lambda: f"limit {port}_sent" in rules())  # it comes a moment after the answer
    before = rules()
    for change in (
        f"flush set bridge {own} own4",
        f"delete element bridge {own} hardware {{ {port} . {hardware} }}",
        f"flush map bridge {own} sent; delete limit bridge {own} {port}_sent",
        f"chain inet {own} forwarding {{ policy drop; }}",
        f"insert rule bridge {own} guard accept",
    ):
        told = len(fleet.events("repaired"))
        subprocess.run(["nft", change], check=True)
        until(lambda told=told: len(fleet.events("repaired")) > told, what=change)  # type: ignore[misc]
        until(lambda: rules() == before, what=change)
    told = len(fleet.events("repaired"))
    fleet.ok("restart", one)
    fleet.ok("set", one, "send_mbit=50")
    assert len(fleet.events("repaired")) == told  # what lxcfleet itself changes is as it should be


def test_a_change_of_the_rules_that_the_kernel_could_not_tell_of_is_undone(fleet: Fleet) -> None:
    """Another program loads more than the kernel keeps for the daemon: what else was changed just then was never seen."""
    fleet.stop_daemon()
    daemon = fleet.start_daemon(module="tests.system.narrow_daemon")
    fleet.create(fleet.name(1))
    own, many = f"lxcfleet_{fleet.bridge}", ", ".join(str(IPv4Address(0x0A000000 + number)) for number in range(5000))

    def rules() -> str:
        return subprocess.check_output(["nft", "-s", "list", "table", "bridge", own], text=True)

    before = rules()
    daemon.send_signal(signal.SIGSTOP)
    try:
        subprocess.run(["nft", f"insert rule bridge {own} guard accept"], check=True)
        set_of_many = f"table inet many_{fleet.tag} {{ set many {{ type ipv4_addr; elements = {{ {many} }}\n}}\n}}\n"
        subprocess.run(["nft", "-f", "-"], input=set_of_many, text=True, check=True)
        subprocess.run(["nft", f"delete table inet many_{fleet.tag}"], check=True)
        assert rules() != before
    finally:
        daemon.send_signal(signal.SIGCONT)
    until(lambda: rules() == before, what="the rules are as they were")
    assert fleet.events("repaired") == []


def test_containers_start_without_a_name_server_and_an_event_tells_it(fleet: Fleet) -> None:
    fleet.stop_daemon()
    own = f"network: {{bridge: {fleet.bridge}, domain: {fleet.tag}.test, ipv4: 10.213.53.0/24, drain: 0}}\n"
    fleet.settings(own)
    name = fleet.name(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: the address is not there yet
        other.bind(("10.213.53.1", 53))
        fleet.start_daemon(module=EAGER)
        fleet.create(name)
        assert len(fleet.events("no-names")) == 1
        assert "in use" in fleet.events("no-names")[0]["message"]
        fleet.ok("restart", name)
        time.sleep(3)
        assert fleet.record(name)["state"] == "running"
        assert len(fleet.events("no-names")) == 1
    until(lambda: lookup(fleet, name, name) == set(addresses(fleet)[name]), 15, "names are looked up once the port is free")
    until(lambda: "name server" in str(fleet.events("repaired")[-1:]), what="an event tells the repair")


COUNT = """
import socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("", 9000))
count = 0
def datagrams():
    global count
    while True:
        count += len(u.recv(2000))
threading.Thread(target=datagrams, daemon=True).start()
s = socket.create_server(("", 8080))
while True:
    c, _ = s.accept()
    c.sendall(str(count).encode())
    c.close()
"""
REACHED = "import socket, sys; socket.create_connection((sys.argv[1], 8080), 2)"
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(14000):
    s.sendto(bytes(1400), (sys.argv[1], 9000))
"""


def test_bandwidth_is_limited_in_both_directions_and_at_once(fleet: Fleet) -> None:
    """19.6 MB are sent as fast as the sender can. At 1 Mbit/s, what arrives of that in ten seconds is 1.5 MB."""
    sender, counter = fleet.name(1), fleet.name(2)
    fleet.create(sender)
    fleet.ok("create", counter, "--", "python3", "-c", COUNT)
    address = addresses(fleet)[counter][0]

    def counted() -> int:
        with socket.create_connection((address, 8080), 60) as connection:  # what is limited may hold it up
            return int(connection.recv(20))

    def arrived() -> int:
        before = counted()
        fleet.ok("exec", sender, "--", "python3", "-c", SEND, address)
        return counted() - before

    until(lambda: fleet.run("exec", sender, "--", "python3", "-c", REACHED, address).status == 0, what="the counter is up")
    until(lambda: arrived() > 4_000_000, what="without a limit far more arrives")
    fleet.ok("set", sender, "send_mbit=1")
    until(lambda: arrived() < 2_000_000, what="what a container sends is limited")
    fleet.ok("set", sender, "send_mbit=0")
    fleet.ok("set", counter, "receive_mbit=1")
    until(lambda: arrived() < 2_000_000, what="what a container receives is limited")
    fleet.ok("restart", counter)
    until(lambda: fleet.run("exec", sender, "--", "python3", "-c", REACHED, address).status == 0, what="the counter is back")
    assert arrived() < 2_000_000  # from its first packet on
    fleet.ok("set", counter, f"receive_mbit={MAX_MBIT:g}")
    until(lambda: arrived() > 4_000_000, what="the limit is higher")
    fleet.ok("set", counter, "receive_mbit=0")
    until(lambda: arrived() > 4_000_000, what="the limit is gone")


def test_a_container_without_a_network_has_only_loopback(fleet: Fleet) -> None:
    name = fleet.name(1)
    fleet.ok("create", name, "--network", "none", *SLEEP)
    assert addresses(fleet)[name] == []
    inside = fleet.ok("exec", name, "--", "ls", "/sys/class/net").split()
    assert inside == ["lo"]
    assert not os.path.exists(f"/sys/class/net/{fleet.bridge}")


def test_a_container_in_the_hosts_network_can_use_it_and_not_change_it(fleet: Fleet) -> None:
    name = fleet.name(1)
    fleet.ok("create", name, "--network", "host", *SLEEP)
    assert addresses(fleet)[name] == []
    seen = ("exec", name, "--", "ls", "/sys/class/net")
    # Those of other tests come and go.
    until(lambda: sorted(os.listdir("/sys/class/net")) == fleet.ok(*seen).split(), what="it sees the host's interfaces")
    assert fleet.inside(name, "cat /etc/resolv.conf") == Path("/etc/resolv.conf").read_text().strip()
    with socket.create_server(("127.0.0.1", 0)) as service:
        script = f"import socket; socket.create_connection(('127.0.0.1', {service.getsockname()[1]}), 60)"
        fleet.ok("exec", name, "--", "python3", "-c", script)
    # The container has no rights over the host's network: it can look at it, and change nothing.
    assert fleet.run("exec", name, "--", "ip", "link", "set", "lo", "down").status != 0
    assert fleet.run("exec", name, "--", "sh", "-c", "echo 1 > /sys/fs/cgroup/cgroup.procs").status != 0
    fleet.ok("restart", name)
    refused = fleet.run("create", fleet.name(2), "--network", "host")
    assert (refused.status, "system container" in refused.err) == (2, True)


def test_a_create_without_nftables_names_it_in_the_error(fleet: Fleet) -> None:
    fleet.stop_daemon()
    hide = ["unshare", "-m", "--propagation", "slave", "sh", "-c", f"mount --bind /dev/null /usr/sbin/nft && exec {DAEMON}"]
    daemon = subprocess.Popen(hide, env=fleet.environment(), stderr=subprocess.DEVNULL)
    try:
        until(lambda: fleet.daemon_pid() == daemon.pid, 30, "the daemon answers")
        refused = fleet.run("create", fleet.name(1), *SLEEP)
        assert (refused.status, "nft" in refused.err) == (1, True)
        assert fleet.ok("list", "-q") == ""
        fleet.ok("create", fleet.name(1), "--network", "none", *SLEEP)
        fleet.ok("destroy", "--force", fleet.name(1))
    finally:
        fleet.stop_daemon()
        daemon.wait(TIMEOUT)


def test_a_range_that_the_host_uses_is_refused(fleet: Fleet) -> None:
    other = f"lo{fleet.tag}"
    subprocess.run(["ip", "link", "add", other, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "addr", "add", "10.98.7.1/24", "dev", other], check=True)
        fleet.settings(f"network: {{bridge: {fleet.bridge}, ipv4: 10.98.0.0/16, ipv6: none, drain: 0}}\n")
        fleet.stop_daemon()
        fleet.start_daemon()
        refused = fleet.run("create", fleet.name(1), *SLEEP)
        assert (refused.status, "overlaps with 10.98.7" in refused.err) == (2, True)
        assert fleet.ok("list", "-q") == ""
    finally:
        subprocess.run(["ip", "link", "del", other], check=True)


def test_a_range_that_is_too_small_is_refused_with_the_numbers(fleet: Fleet) -> None:
    fleet.settings(f"network: {{bridge: {fleet.bridge}, ipv4: 10.99.7.0/29, ipv6: none, drain: 0}}\n")
    fleet.stop_daemon()
    fleet.start_daemon()
    refused = fleet.run("create", fleet.prefix.rstrip("-"), "-n", "6", *SLEEP)
    assert refused.status == 1
    assert "6 addresses needed, 5 left" in refused.err
    assert fleet.ok("list", "-q") == ""


def test_a_system_container_has_the_network_when_it_is_up(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, command=())
    fleet.create(two)
    fleet.ok("wait", one, "--for", "healthy")
    until(lambda: lookup(fleet, one, two) == set(addresses(fleet)[two]))
    fleet.ok("restart", one)
    fleet.ok("wait", one, "--for", "healthy")
    until(lambda: lookup(fleet, one, two) == set(addresses(fleet)[two]))


def test_other_peoples_bridges_are_left_alone(fleet: Fleet) -> None:
    other = f"lo{fleet.tag}"
    subprocess.run(["ip", "link", "add", other, "type", "bridge"], check=True)
    try:
        fleet.settings(f"network: {{bridge: {other}, drain: 0}}\n")
        fleet.stop_daemon()
        fleet.start_daemon()
        refused = fleet.run("create", fleet.name(1), *SLEEP)
        assert refused.status == 1
        assert "not lxcfleet's" in refused.err
        assert fleet.ok("list", "-q") == ""
        assert os.path.exists(f"/sys/class/net/{other}")
    finally:
        subprocess.run(["ip", "link", "del", other], check=True)


def test_a_bridge_that_a_killed_daemon_left_is_removed_by_the_next(fleet: Fleet) -> None:
    fleet.create(fleet.name(1))
    fleet.stop_daemon(signal.SIGKILL)
    subprocess.run(["lxc-stop", "-k", "-P", str(fleet.paths.lxc), "-n", fleet.name(1)], check=True)
    until(lambda: not fleet.processes(), what="its monitor has tidied up")  # it writes into the directory
    subprocess.run(["rm", "-r", str(fleet.paths.container(fleet.name(1)).directory)], check=True)
    assert os.path.exists(f"/sys/class/net/{fleet.bridge}")
    fleet.start_daemon()
    until(lambda: not os.path.exists(f"/sys/class/net/{fleet.bridge}"), what="the bridge is removed")
