#!/usr/bin/python3
"""Count the frames that a bridge delivers to containers while they restart and find each other.

    /usr/bin/python3 bench/frames.py [--count 200] [--json FILE] [--open]

Needs root and about a minute; the load of the machine does not matter. In place of containers there are network namespaces
with the interfaces, addresses, rules and tables that containers have. Each is removed and made anew, one after the other;
then each connects to the bridge and to its neighbour, and the host to each, over IPv4 and IPv6.

--open: without the rules, as with ``guard: false``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import alone
from lxcfleet.host.net import bridge_port
from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.rules import guard
from lxcfleet.network.rules.guard import Guest
from lxcfleet.spec.container.addresses import hardware_address

BRIDGE = "lxcfleet-bench"
SUBNET = Subnet(IPv4Network("10.254.0.0/16"), IPv6Network("fd99::/64"))
PORT = 9
"""Nobody listens there: a refusal shows that the other end was reached."""
SETTLE_SECONDS = 8.0
"""Kernels send what they have to tell about groups within so many seconds."""


def run(*command: str, input: str = "") -> None:
    """Run a program, which must succeed."""
    subprocess.run(command, input=input.encode(), check=True)


class Bench:
    """A bridge with its ports."""

    def __init__(self, count: int, *, guarded: bool) -> None:
        first = int(SUBNET.ipv4.network_address) + 2
        self._addresses = [IPv4Address(first + number) for number in range(count)]
        self._guests = [Guest(each, self._ipv6(each), isolated=False) for each in self._addresses]
        self._guarded = guarded
        self._gone = 0
        """Frames that were delivered to ports that are gone."""

    def _ipv6(self, address: IPv4Address) -> IPv6Address:
        found = SUBNET.ipv6_of(address)
        assert found is not None
        return found.ip

    def begin(self) -> None:
        """Make the bridge, its rules and all ports."""
        hardware = hardware_address(SUBNET.gateway.ip)
        run("ip", "link", "add", BRIDGE, "address", hardware, "type", "bridge", "mcast_snooping", "0")
        run("ip", "-batch", "-", input=f"addr add {SUBNET.gateway} dev {BRIDGE}\naddr add {SUBNET.gateway6} dev {BRIDGE}\n"
            f"link set {BRIDGE} up\n")  # fmt: skip
        run("nft", "-f", "-", input=guard.render(SUBNET, BRIDGE, guard=self._guarded) + guard.admit(BRIDGE, self._guests))
        for number in range(len(self._guests)):
            self.start(number)

    def end(self) -> None:
        """Remove everything, whatever is there of it."""
        for number in range(len(self._guests)):
            subprocess.run(["ip", "netns", "del", self._name(number)], stderr=subprocess.DEVNULL, check=False)
        subprocess.run(["ip", "link", "del", BRIDGE], stderr=subprocess.DEVNULL, check=False)
        run("nft", "-f", "-", input=guard.removal(BRIDGE))

    def _name(self, number: int) -> str:
        return f"{BRIDGE}{number}"

    def start(self, number: int) -> None:
        """Make a namespace with its port, as a container has them."""
        own, name = self._guests[number], self._name(number)
        hardware = hardware_address(own.ipv4)
        run("ip", "netns", "add", name)
        run("ip", "-batch", "-", input=f"link add {own.port} type veth peer name eth0 netns {name} address {hardware}\n"
            f"link set {own.port} master {BRIDGE}\nlink set {own.port} up\n")  # fmt: skip
        run("ip", "-n", name, "-batch", "-", input=f"link set lo up\naddr add {own.ipv4}/16 dev eth0\n"
            f"addr add {own.ipv6}/64 dev eth0{' nodad' if self._guarded else ''}\nlink set eth0 up\n")  # fmt: skip
        if self._guarded:
            bridge_port.set_up(own.port, bridge_port.Switches(hairpin=False, isolated=False, only=hardware))

    def restart(self, number: int) -> None:
        """Remove a namespace and its port, and make it anew."""
        self._gone += self._delivered(number)
        run("ip", "netns", "del", self._name(number))
        while self._port(number).exists():
            time.sleep(0.001)
        self.start(number)

    def _port(self, number: int) -> Path:
        return Path("/sys/class/net", self._guests[number].port)

    def _delivered(self, number: int) -> int:
        return int((self._port(number) / "statistics" / "tx_packets").read_text())

    def frames(self) -> int:
        """The frames delivered so far."""
        return self._gone + sum(map(self._delivered, range(len(self._guests))))

    def connect(self, version: int, *, to: str) -> int:
        """Have all connect to the bridge or to their neighbours, or the host to all; how many did not get there."""
        failures = 0
        for number, own in enumerate(self._guests):
            other = self._guests[(number + 1) % len(self._guests)] if to == "neighbour" else own
            gateway = SUBNET.gateway if version == 4 else SUBNET.gateway6
            assert gateway is not None
            target = gateway.ip if to == "bridge" else other.ipv4 if version == 4 else self._ipv6(other.ipv4)
            inside = () if to == "container" else ("ip", "netns", "exec", self._name(number))
            if not _reaches(inside, str(target)):
                print(f"not reached: {to}, {target}", file=sys.stderr)
                failures += 1
        return failures


def _reaches(inside: Sequence[str], target: str) -> bool:
    command = [*inside, "timeout", "20", "bash", "-c", f"exec 3<>/dev/tcp/{target}/{PORT}"]
    return b"refused" in subprocess.run(command, capture_output=True, check=False).stderr


def main() -> int:
    """Run the benchmark; 0, or 1 if somebody was not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--open", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    alone.hold()
    bench = Bench(options.count, guarded=not options.open)
    found: dict[str, int] = {}
    failures = 0
    try:
        bench.begin()
        time.sleep(SETTLE_SECONDS)
        before = bench.frames()
        for number in range(options.count):
            bench.restart(number)
        time.sleep(SETTLE_SECONDS)
        found["frames_restart_of_all"] = bench.frames() - before
        for to in ("bridge", "neighbour", "container"):
            for version in (4, 6):
                before = bench.frames()
                failures += bench.connect(version, to=to)
                found[f"frames_to_{to}_ipv{version}"] = bench.frames() - before
    finally:
        bench.end()
    found["not_reached"] = failures
    for what, value in found.items():
        print(f"{what}: {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="ascii")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
