"""Addresses, names and the bridge, on the real kernel with the real dnsmasq and nft."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.system.harness import SLEEP, Fleet, until

pytestmark = pytest.mark.system


@pytest.fixture()
def fleet() -> Iterator[Fleet]:
    own = Fleet()
    bridge = f"lt{own.tag}"
    own.settings(f"network: {{bridge: {bridge}, domain: {own.tag}.test}}\n")
    yield own
    own.end()
    assert not os.path.exists(f"/sys/class/net/{bridge}")
    assert bridge not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def bridge_of(fleet: Fleet) -> str:
    return f"lt{fleet.tag}"


def addresses(fleet: Fleet) -> dict[str, list[str]]:
    return {c["name"]: c["addresses"] for c in fleet.run("list", "-f", "json").json}


def lookup(fleet: Fleet, inside: str, name: str) -> set[str]:
    """What a container's own resolver says of a name."""
    found = fleet.run("exec", inside, "--", "getent", "ahosts", name, check=False)
    return {line.split()[0] for line in found.out.splitlines()}


def dnsmasq_pid(fleet: Fleet) -> int:
    return int(fleet.paths.dnsmasq_pid.read_text())


def test_containers_have_addresses_and_names(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.run("create", one, "-l", "role=web", *SLEEP)
    fleet.run("create", two, "-l", "role=web", *SLEEP)
    before = addresses(fleet)
    assert before[one] != before[two]
    domain = f"{fleet.tag}.test"
    assert lookup(fleet, one, f"{two}.{domain}") == set(before[two])
    assert lookup(fleet, one, two) == set(before[two])
    assert lookup(fleet, one, f"web.role.{domain}") == {*before[one], *before[two]}
    reverse = fleet.run("exec", one, "--", "getent", "hosts", before[two][0])
    assert reverse.out.split()[1] == f"{two}.{domain}"

    fleet.run("stop", two)
    until(lambda: not lookup(fleet, one, two), what="the name of a stopped container is withdrawn")
    assert lookup(fleet, one, f"web.role.{domain}") == set(before[one])
    fleet.run("start", two)
    until(lambda: lookup(fleet, one, two), what="the name is back")
    assert addresses(fleet) == before


def test_the_host_reaches_a_container_and_back(fleet: Fleet) -> None:
    name = fleet.name(1)
    server = "import socket; s=socket.create_server(('',7)); c,a=s.accept(); c.send(a[0].encode())"
    fleet.run("create", name, "--", "python3", "-c", server)
    address = addresses(fleet)[name][0]
    said = until(lambda: _read(address, 7), what="the container answers")
    gateway = address.rsplit(".", 2)[0] + ".0.1"
    assert said == gateway


def _read(address: str, port: int) -> str:
    import socket

    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            return connection.recv(64).decode()
    except OSError:
        return ""


def test_a_bridge_and_a_name_server_that_were_taken_away_come_back(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.run("create", one, *SLEEP)
    fleet.run("create", two, *SLEEP)
    bridge = bridge_of(fleet)
    subprocess.run(["ip", "link", "del", bridge], check=True)
    until(lambda: os.path.exists(f"/sys/class/net/{bridge}"), 15, "the bridge is repaired")
    until(lambda: len(os.listdir(f"/sys/class/net/{bridge}/brif")) == 2, 5, "both containers are on it again")
    old = dnsmasq_pid(fleet)
    os.kill(old, signal.SIGKILL)
    until(lambda: dnsmasq_pid(fleet) != old and lookup(fleet, one, two), 15, "the name server is repaired")
    said = fleet.run("events", "--format", "json").out
    assert said.count('"repaired"') == 2


def test_no_network_means_none(fleet: Fleet) -> None:
    name = fleet.name(1)
    fleet.run("create", name, "--network", "none", *SLEEP)
    assert addresses(fleet)[name] == []
    inside = fleet.run("exec", name, "--", "ls", "/sys/class/net").out.split()
    assert inside == ["lo"]
    assert not os.path.exists(f"/sys/class/net/{bridge_of(fleet)}")


def test_a_range_that_is_too_small_is_refused_with_the_numbers(fleet: Fleet) -> None:
    fleet.settings(f"network: {{bridge: {bridge_of(fleet)}, ipv4: 10.99.7.0/29, ipv6: 'off'}}\n")
    refused = fleet.run("create", fleet.prefix.rstrip("-"), "-n", "6", *SLEEP, check=False)
    assert refused.status == 1
    assert "6 addresses needed, 5 left" in refused.err
    assert fleet.run("list", "-q").out == ""


def test_a_system_container_has_the_network_when_it_is_up(fleet: Fleet) -> None:
    one, two = fleet.name(1), fleet.name(2)
    fleet.run("create", one)
    fleet.run("create", two, *SLEEP)
    fleet.run("wait", one, "--for", "healthy")
    assert lookup(fleet, one, two) == set(addresses(fleet)[two])
    fleet.run("restart", one)
    fleet.run("wait", one, "--for", "healthy")
    assert lookup(fleet, one, two) == set(addresses(fleet)[two])
