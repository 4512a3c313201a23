"""Containers on a bridge of the host, with addresses from a real DHCP server: dnsmasq in a namespace of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rdatatype
import pytest

from . import behind_the_name_server
from .harness import PATIENCE, SLEEP, TIMEOUT, Fleet, alive, command_lines, until

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not Path("/sbin/udhcpc").exists(), reason="needs udhcpc"),
]

NETWORK = f"10.77.{os.getpid() % 250}"
"""Another run of these tests on the same machine is not likely to have the same one."""
HOST, ROUTER = f"{NETWORK}.1", f"{NETWORK}.2"
FIRST_RANGE, OTHER_RANGE = f"{NETWORK}.50,{NETWORK}.99", f"{NETWORK}.150,{NETWORK}.199"
STRANGE = f"{NETWORK}.222"
"""An address that the server gives to nobody."""
PREFIX6 = f"fd77:{os.getpid() % 250:x}:"
SECONDS = 30.0


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Rack:
    """A bridge that the host's operator made, and a router on it with a DHCP server."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self._directory = directory
        self._server: subprocess.Popen[bytes] | None = None
        ip("netns", "add", name)
        ip("link", "add", name, "type", "bridge")
        ip("addr", "add", f"{HOST}/24", "dev", name)
        ip("link", "set", name, "up")
        ip("link", "add", f"{name}r", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"{name}r", "master", name, "up")
        for words in (f"addr add {ROUTER}/24 dev eth0", f"addr add {PREFIX6}:2/64 dev eth0 nodad", "link set eth0 up",
                      "link set lo up"):  # fmt: skip
            ip("-n", name, *words.split())

    def serve(self, addresses: str = FIRST_RANGE) -> None:
        """Start a DHCP server that gives these addresses and sends a router's advertisements."""
        self.silence()
        leases = self._directory / "leases"
        leases.unlink(missing_ok=True)
        self._server = subprocess.Popen(
            [*self.within, "/usr/sbin/dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping",
             "--interface=eth0", f"--dhcp-range={addresses},10m", f"--dhcp-range={PREFIX6}:,ra-only", "--enable-ra",
             f"--dhcp-leasefile={leases}", f"--pid-file={self._directory}/pid", "--dhcp-authoritative", "--user=root"],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def within(self) -> list[str]:
        """The words before a command that is to run in the router's namespace."""
        return ["ip", "netns", "exec", self.name]

    def silence(self) -> None:
        """Stop the DHCP server."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(60)
            self._server = None

    def remove(self) -> None:
        self.silence()
        subprocess.run(["ip", "link", "del", self.name], capture_output=True, check=False)
        ip("netns", "del", self.name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Rack]]:
    if os.geteuid() != 0 or shutil.which("lxc-start") is None:
        pytest.skip("needs root and LXC")
    fleet = Fleet()
    rack = Rack(f"lr{fleet.tag}", tmp_path_factory.mktemp("rack"))
    try:
        fleet.settings(f"network: {{bridge: {rack.name}, addresses: dhcp, domain: {fleet.tag}.test, drain: 0}}\n")
        fleet.start_daemon()
        yield fleet, rack
    finally:
        fleet.run("destroy", "--all", "--force", "-q")
        fleet.remove()
        rack.remove()


@pytest.fixture
def rack(place: tuple[Fleet, Rack]) -> Rack:
    place[1].serve()
    return place[1]


@pytest.fixture
def fleet(place: tuple[Fleet, Rack], rack: Rack) -> Iterator[Fleet]:
    """The module's fleet. The test's containers are destroyed after the test, and leave the operator's bridge as it was."""
    own, before = place[0], ip("-o", "-4", "addr", "show", "dev", rack.name)
    if own.daemon_pid() is None:
        own.start_daemon()
    yield own
    own.clean()
    until(lambda: not left(own), what="DHCP clients and leases are gone")
    until(lambda: not ports(rack), what="no cable to a container is left")
    assert [line.split()[1:4] for line in ip("-o", "-4", "addr", "show", "dev", rack.name).splitlines()] == [
        line.split()[1:4] for line in before.splitlines()
    ]
    tables = subprocess.run(["/usr/sbin/nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert rack.name not in tables


def ports(rack: Rack) -> list[str]:
    """The host's ends of cables to containers, but for those on other bridges: tests that run beside this one have theirs."""
    found = []
    for port in Path("/sys/class/net").glob("ld*"):
        try:
            on = os.path.basename(os.readlink(port / "master"))
        except OSError:
            on = ""
        found += [port.name] if on in ("", rack.name) else []
    return found


def told(fleet: Fleet, what: str) -> Callable[[], list[dict[str, Any]]]:
    """Gives the events of one kind that came after now: earlier tests of this module had some, too."""
    before = len(fleet.events(what))
    return lambda: fleet.events(what)[before:]


def clients(fleet: Fleet) -> dict[str, int]:
    """The pid of each container's DHCP client on the host, by the container's name."""
    found = {}
    for pid, line in command_lines():
        if "/sbin/udhcpc " in line and f"hostname:{fleet.prefix}" in line:
            found[line.rpartition("hostname:")[2].split()[0]] = pid
    return found


def left(fleet: Fleet) -> list[str]:
    """The files of leases and the DHCP clients on the host."""
    files = [str(file) for where in (fleet.paths.leases, fleet.paths.clients) for file in where.glob("*")]
    return [*files, *clients(fleet)]


def addresses(fleet: Fleet) -> dict[str, list[str]]:
    return {record["name"]: record["addresses"] for record in fleet.records()}


def wait(fleet: Fleet, *names: str) -> dict[str, str]:
    """Wait until these containers have addresses. Return the IPv4 address of each."""

    def there() -> dict[str, str] | None:
        found = addresses(fleet)
        return {name: found[name][0] for name in names} if all(found[name] for name in names) else None

    return dict(until(there, SECONDS, "all containers have addresses"))


def lookup(name: str, kind: str = "A") -> set[str]:
    """The answers of the fleet's name server on the host."""
    answer = dns.query.udp(dns.message.make_query(name, kind, use_edns=0, payload=8192), HOST, timeout=60)
    return {str(item) for rrset in answer.answer if rrset.rdtype == dns.rdatatype.from_text(kind) for item in rrset}


def test_twenty_containers_at_once_get_addresses_and_names(fleet: Fleet, rack: Rack) -> None:
    prefix, domain = fleet.prefix.rstrip("-"), f"{fleet.tag}.test"
    fleet.ok("create", prefix, "-n", "20", "-l", "role=web", "--port", "http=80", *SLEEP)
    names = list(fleet.states())
    before = wait(fleet, *names)
    assert len(set(before.values())) == len(names) == 20
    low, high = map(IPv4Address, FIRST_RANGE.split(","))
    assert all(low <= IPv4Address(address) <= high for address in before.values())
    fleet.ok("wait", "--all", "--for", "healthy")

    one, two = names[:2]
    assert lookup(f"{one}.{domain}") == {before[one]}
    assert lookup(f"web.role.{domain}") == set(before.values())
    assert len(lookup(f"_http._tcp.web.role.{domain}", "SRV")) == 20
    plain = dns.query.udp(dns.message.make_query(f"_http._tcp.web.role.{domain}", "SRV"), HOST, timeout=60)
    assert 5 < len(plain.answer[0]) < 20, "as many as 512 bytes have room for"
    assert before[two] in fleet.inside(one, f"getent ahosts {two}")
    # The container has a default route and an IPv6 address with the router's prefix.
    assert ROUTER in fleet.inside(one, "ip route show default")
    both = (one, two)
    until(lambda: all(":" in "".join(addresses(fleet)[name]) for name in both), SECONDS, "both have an IPv6 address")
    own6 = next(address for address in addresses(fleet)[one] if ":" in address)
    assert IPv6Address(own6) in IPv6Network(f"{PREFIX6}:/64")
    until(lambda: lookup(f"{one}.{domain}", "AAAA") == {own6})
    listen = "import socket; s=socket.create_server(('::',7), family=socket.AF_INET6); print('up', flush=True); s.accept()"
    server = fleet.spawn("exec", two, "--", "python3", "-c", listen)
    other = addresses(fleet)[two][-1]
    connect = f"import socket; socket.create_connection(('{other}', 7), 5)"
    until(lambda: fleet.run("exec", one, "--", "python3", "-c", connect).status == 0, 30, what="one reaches two by IPv6")
    assert server.wait(TIMEOUT) == 0
    assert ip_address(other).version == 6


def test_a_restart_keeps_the_address(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one)
    fleet.create(two, command=())  # systemd inside
    before, began = wait(fleet, one, two), clients(fleet)
    fleet.ok("restart", one, two)
    assert wait(fleet, one, two) == before
    until(lambda: not set(began.values()) & set(clients(fleet).values()), what="each has a DHCP client of this run")
    fleet.ok("stop", one)
    assert addresses(fleet)[one] == []
    until(lambda: set(clients(fleet)) == {two}, what="the DHCP client has ended with its container")
    assert lookup(f"{one}.{fleet.tag}.test") == set()
    fleet.ok("start", one)
    assert wait(fleet, one) == {one: before[one]}
    # To the server a container of the same name is the same client, also when it is created anew.
    fleet.ok("destroy", "--force", one)
    fleet.create(one)
    assert wait(fleet, one) == {one: before[one]}


def test_a_dhcp_client_lives_as_long_as_its_container_even_without_the_daemon(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two)
    before, pids, init = wait(fleet, one, two), clients(fleet), fleet.pid(two)
    fleet.stop_daemon(signal.SIGKILL)
    assert clients(fleet) == pids
    assert lookup(f"{two}.{fleet.tag}.test") == {before[two]}
    os.kill(init, signal.SIGKILL)
    until(lambda: not alive(pids[two]), what="the DHCP client ends with its container, without the daemon")
    assert alive(pids[one])
    until(lambda: not any(line.endswith(f" {two}") for line in fleet.processes()), what="its monitor has ended, too")
    fleet.start_daemon()
    assert addresses(fleet)[one][0] == before[one]
    assert addresses(fleet)[two] == []
    assert clients(fleet) == {one: pids[one]}
    assert lookup(f"{one}.{fleet.tag}.test") == {before[one]}
    assert lookup(f"{two}.{fleet.tag}.test") == set()
    # The daemon replaces a DHCP client that was killed.
    os.kill(pids[one], signal.SIGKILL)
    until(lambda: clients(fleet).get(one) not in (None, pids[one]), 15, "the container has a DHCP client again")
    assert wait(fleet, one) == {one: before[one]}


def test_a_container_without_an_address_does_not_answer_for_its_group(fleet: Fleet, rack: Rack) -> None:
    rack.silence()
    name, group = fleet.name(1), f"web.role.{fleet.tag}.test"
    missing = told(fleet, "no-address")
    fleet.create(name, options=("-l", "role=web"))
    until(missing, SECONDS, "the daemon tells of the missing address")
    record = fleet.record(name)
    assert (record["state"], record["health"], record["addresses"]) == ("running", "starting", [])
    assert "DHCP" in record["health_reason"]
    assert lookup(group) == set()
    late = fleet.run("wait", name, "--for", "healthy", "--timeout", "1")
    assert (late.status, "no DHCP server" in late.err) == (1, True)
    rack.serve()
    address = wait(fleet, name)[name]
    fleet.ok("wait", name, "--for", "healthy")
    until(lambda: lookup(group) == {address})


def test_another_address_from_the_server_is_taken_over(fleet: Fleet, rack: Rack) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.create(one, two)
    before = wait(fleet, one, two)
    rack.serve(OTHER_RANGE)
    assert fleet.record(one)["hardware"].startswith("06:")
    os.kill(clients(fleet)[one], signal.SIGUSR1)  # udhcpc asks the server to renew the lease
    until(lambda: addresses(fleet)[one][:1] not in ([], [before[one]]), SECONDS, "the container has the new address")
    after = addresses(fleet)[one][0]
    assert IPv4Address(after) >= IPv4Address(OTHER_RANGE.split(",", maxsplit=1)[0])
    assert lookup(f"{one}.{fleet.tag}.test") == {after}
    assert before[one] not in fleet.inside(one, "ip addr")
    # Without the daemon the packet filter learns the new address by itself.
    fleet.stop_daemon(signal.SIGKILL)
    os.kill(clients(fleet)[two], signal.SIGUSR1)
    assert until(lambda: reaches_host(fleet, two, OTHER_RANGE), SECONDS, "the container may use its new address")
    fleet.start_daemon()
    assert addresses(fleet)[two][0] != before[two]


def reaches_host(fleet: Fleet, name: str, addresses: str) -> bool:
    """Whether a container has one of these addresses and can connect to the host from it. The daemon is not asked."""
    pid = next(pid for pid, line in command_lines() if line == "sleep infinity" and name in _cgroup(pid))
    within = ["nsenter", "--net", "-t", str(pid)]
    there = subprocess.run([*within, "ip", "-o", "-4", "addr", "show", "eth0"], capture_output=True, text=True, check=True)
    low = addresses.split(",", maxsplit=1)[0].rpartition(".")[0]
    own = [word.split("/")[0] for word in there.stdout.split() if word.startswith(low)][:1]
    if not own or IPv4Address(own[0]) < IPv4Address(addresses.split(",", maxsplit=1)[0]):
        return False
    return _connects(within, own[0])


def _connects(within: list[str], source: str) -> bool:
    with socket.create_server((HOST, 0)) as service:
        script = f"import socket; socket.create_connection(('{HOST}', {service.getsockname()[1]}), 2, ('{source}', 0))"
        return subprocess.run([*within, "python3", "-c", script], capture_output=True, check=False).returncode == 0


def _cgroup(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return ""


def test_a_container_can_neither_use_nor_give_addresses_that_are_not_its_own(fleet: Fleet, rack: Rack) -> None:
    one = fleet.name(1)
    fleet.create(one)
    address = wait(fleet, one)[one]
    within = ["nsenter", "--net", "-t", str(fleet.pid(one))]
    assert _connects(within, address)
    fleet.inside(one, f"ip addr add {STRANGE}/24 dev eth0")
    assert not _connects(within, STRANGE)
    fleet.inside(one, f"ip addr del {STRANGE}/24 dev eth0")

    # The daemon takes over no address that no server gave, even if the DHCP client says so.
    lease = fleet.paths.leases / one
    (fleet.paths.leases / f"{one}.new").write_text(f"address {STRANGE}/24\n")
    os.rename(fleet.paths.leases / f"{one}.new", lease)
    until(lambda: "which no DHCP server gave it" in fleet.log(), what="the daemon tells of the address that no server gave")
    until(lambda: addresses(fleet)[one] == [], what="the address is not taken over")
    os.kill(clients(fleet)[one], signal.SIGUSR1)
    assert wait(fleet, one) == {one: address}

    # A container can send neither answers of a DHCP server nor requests to one. The server would have the port of the latter.
    rack.silence()
    send = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(1, 6, 1); s.bind(('', {0})); "
    send += "[s.sendto(b'x' * 300, ('{2}.255', {1})) for _ in range(3)]"
    for source, target, passes in ((67, 68, False), (68, 67, False), (999, 998, True)):
        hear = "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(1, 2, 1); s.bind(('', "
        hear += f"{target})); print('up', flush=True); print(s.recv(999)[:1])"
        listen = [*rack.within, "python3", "-c", hear]
        with subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as ear:
            assert ear.stdout is not None
            try:
                assert ear.stdout.readline() == b"up\n"
                fleet.ok("exec", one, "--", "python3", "-c", send.format(source, target, NETWORK))
                if passes:
                    assert ear.wait(TIMEOUT) == 0
                else:
                    time.sleep(1.0 * PATIENCE)
                    assert ear.poll() is None, (source, target)
            finally:
                ear.kill()


def test_rules_that_somebody_flushed_come_back_with_the_leased_addresses(fleet: Fleet) -> None:
    one = fleet.name(1)
    fleet.create(one)
    address = wait(fleet, one)[one]
    within = ["nsenter", "--net", "-t", str(fleet.pid(one))]
    own = f"lxcfleet_{fleet.paths.config_file.read_text().split('bridge: ')[1].split(',')[0]}"
    repaired = told(fleet, "repaired")
    for family in ("bridge", "inet"):
        subprocess.run(["/usr/sbin/nft", "delete", "table", family, own], check=True)
    until(repaired, 15, "the rules are back")
    behind_the_name_server.ask(HOST)
    assert _connects(within, address)
    fleet.inside(one, f"ip addr add {STRANGE}/24 dev eth0")
    assert not _connects(within, STRANGE)


def test_a_published_port_leads_to_a_container_with_a_leased_address(fleet: Fleet, rack: Rack) -> None:
    fleet.ok("create", fleet.name(1), "-p", "18093:80", "--", "python3", "-m", "http.server", "80")
    wait(fleet, fleet.name(1))
    ask = f"import urllib.request; print(urllib.request.urlopen('http://{HOST}:18093/', timeout=2).status)"
    until(
        lambda: subprocess.run([*rack.within, "python3", "-c", ask], capture_output=True, check=False).returncode == 0,
        15, "another machine of the network reaches the published port",
    )  # fmt: skip
    until(lambda: _status(HOST, 18093) == 200, 5, "the host reaches the published port")


def _status(host: str, port: int) -> int:
    try:
        with socket.create_connection((host, port), 2) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return int(connection.recv(64).split()[1])
    except OSError:
        return 0


def test_containers_are_connected_again_when_a_removed_bridge_is_back(fleet: Fleet, rack: Rack) -> None:
    one, published = fleet.name(1), fleet.name("p")
    fleet.create(one)
    fleet.ok("create", published, "-p", "18094:80", *SLEEP)
    address = wait(fleet, one, published)[one]
    cut_off, repaired = told(fleet, "cut-off"), told(fleet, "repaired")
    ip("link", "del", rack.name)
    until(cut_off, 15, "the daemon tells of the missing bridge")
    refused = fleet.run("create", fleet.name(2), *SLEEP)
    assert (refused.status, f"{rack.name} is not there" in refused.err) == (1, True)
    findings = {each["check"]: each for each in fleet.json_any("doctor")["findings"]}
    assert findings["network"]["level"] == "fail"
    assert not os.path.exists(f"/sys/class/net/{rack.name}")  # the daemon has not made it
    fleet.ok("stop", published)  # these verbs work without the bridge
    fleet.ok("destroy", published)
    ip("link", "add", rack.name, "type", "bridge")
    ip("addr", "add", f"{HOST}/24", "dev", rack.name)
    ip("link", "set", rack.name, "up")
    ip("link", "set", f"{rack.name}r", "master", rack.name, "up")
    until(repaired, 15, "the network is repaired")
    within = ["nsenter", "--net", "-t", str(fleet.pid(one))]
    until(lambda: _connects(within, address), SECONDS, "the container reaches the bridge's new MAC address")
    assert {each["check"]: each["level"] for each in fleet.json_any("doctor")["findings"]}["network"] == "ok"


def test_a_bridge_of_the_hosts_is_used_only_if_the_settings_say_so(fleet: Fleet, rack: Rack) -> None:
    usual = fleet.paths.config_file.read_text()
    try:
        fleet.settings(f"network: {{bridge: {rack.name}, drain: 0}}\n")
        fleet.stop_daemon()
        fleet.start_daemon()
        refused = fleet.run("create", fleet.name(1), *SLEEP)
        assert (refused.status, "addresses: dhcp" in refused.err) == (1, True)
    finally:
        fleet.settings(usual)
        fleet.stop_daemon()
        fleet.start_daemon()


def test_isolated_containers_reach_the_network_and_not_each_other(fleet: Fleet, rack: Rack) -> None:
    one, two, free = fleet.name(1), fleet.name(2), fleet.name(3)
    listen = ("--", "python3", "-m", "http.server", "80")
    fleet.create(one, two, command=listen, options=("--isolated",))
    fleet.create(free, command=listen)
    found = wait(fleet, one, two, free)

    def connects(name: str, address: str, port: int = 80) -> bool:
        script = f"import socket; socket.create_connection(('{address}', {port}), 2)"
        return fleet.run("exec", name, "--", "python3", "-c", script).status == 0

    until(lambda: connects(free, found[one]), 15, "another container reaches the isolated one")
    until(lambda: connects(one, found[free]), 15, "the isolated container reaches the other one")
    assert not connects(one, found[two])
    with socket.create_server((HOST, 0)) as service:
        assert connects(free, HOST, service.getsockname()[1])
        assert not connects(one, HOST, service.getsockname()[1])
    assert found[two] in fleet.inside(one, f"getent ahosts {two}")
    assert _status(found[one], 80) == 200  # the host reaches an isolated container


def test_the_dhcp_client_of_a_privileged_container_is_out_of_its_reach(fleet: Fleet) -> None:
    one = fleet.name(1)
    fleet.create(one, options=("--privileged",))
    wait(fleet, one)
    pid, init = clients(fleet)[one], fleet.pid(one)
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{init}/ns/net")
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert "udhcpc" not in fleet.inside(one, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    fleet.stop_daemon(signal.SIGKILL)
    os.kill(init, signal.SIGKILL)
    until(lambda: not alive(init))
    fleet.start_daemon()
    until(lambda: not left(fleet), what="the next daemon ends the DHCP client")
