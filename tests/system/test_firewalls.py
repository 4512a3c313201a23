"""What docs/network.md says to do beside Docker and ufw, done as it stands there, with Debian's iptables and ufw: a host, a
container and a machine elsewhere are network namespaces, and the host has the product's own rules."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

import pytest

from lxcfleet.network.addresses.ranges import Subnet
from lxcfleet.network.rules import rules
from lxcfleet.network.rules.rules import Published
from lxcfleet.spec.container.ports import parse_publication

pytestmark = pytest.mark.system

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lxcfleet/packages"
"""`make test-packages` unpacks them there: installed, ufw and iptables would be this host's."""
BRIDGE = "lxcfleet0"
SUBNET = Subnet(IPv4Network("10.201.0.0/16"), IPv6Network("fd99:201::/64"))
CONTAINER, CONTAINER6 = "10.201.0.2", "fd99:201::2"
HOST, HOST6 = "198.51.100.1", "2001:db8:1::1"
ELSEWHERE, ELSEWHERE6 = "198.51.100.2", "2001:db8:1::2"
GATEWAY = str(SUBNET.gateway.ip)

CONNECT = """
import socket, sys
for words in sys.argv[1:]:
    address, _, port = words.rpartition(" ")
    try:
        socket.create_connection((address, int(port)), 3).close()
    except ConnectionRefusedError:
        print("reached")  # nobody listens there
    except OSError:
        print("lost")
    else:
        print("reached")
"""

DOCKER = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
COMMIT
"""
"""What Debian 12's and 13's docker.io leave in the table filter, by `iptables-save`."""
DOCKER_28 = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
COMMIT
"""
"""The same of Docker's own packages from 28 on."""

SEE = """
import json
from lxcfleet.host.net import nft
from lxcfleet.network.rules import forwarding
chains = nft.chains()
found = [forwarding.closed(each, nft.rules(each["family"], each["table"]), chains, "lxcfleet0")
         for each in forwarding.dropping(chains) if not each["table"].startswith("lxcfleet")]
print(json.dumps(sorted(each["family"] for each in found if each is not None)))
"""


def recipe(tool: str) -> list[str]:
    """The commands that docs/network.md has for one of these tools."""
    page = (ROOT / "docs/network.md").read_text(encoding="utf-8")
    point = re.search(rf"^- \*\*{tool}\*\*.*?(?=^- \*\*|^$)", page, re.M | re.S)
    assert point is not None
    spans = (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", point[0]))
    wanted = ("iptables -I", "ufw allow", "ufw route")
    return [line.strip() for span in spans if span.startswith(wanted) for line in span.split(";")]


class Place:
    """The three machines."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        tag = os.urandom(3).hex()
        self.host, self.container, self.elsewhere = (f"lw{tag}{end}" for end in "hco")
        self._programs = directory / "programs"

    def make(self) -> None:
        for name in (self.host, self.container, self.elsewhere):
            self._ip(f"netns add {name}")
            self._ip(f"-n {name} link set lo up")
            # The kernel uses no address of its own for a second or two while it looks whether others have it.
            self.within(name, ["sysctl", "-qw", *(f"net.ipv6.conf.{part}.accept_dad=0" for part in ("all", "default"))])
        published = Published(parse_publication("8080:80"), (IPv4Address(CONTAINER),), (IPv6Address(CONTAINER6),))
        for line in (
            f"-n {self.host} link add {BRIDGE} type bridge",
            f"-n {self.host} link add p type veth peer name eth0 netns {self.container}",
            f"-n {self.host} link set p master {BRIDGE} up",
            f"-n {self.host} link add eth0 type veth peer name eth0 netns {self.elsewhere}",
        ):
            self._ip(line)
        for name, device, *addresses in (
            (self.host, BRIDGE, str(SUBNET.gateway), str(SUBNET.gateway6)),
            (self.host, "eth0", f"{HOST}/24", f"{HOST6}/64"),
            (self.container, "eth0", f"{CONTAINER}/16", f"{CONTAINER6}/64"),
            (self.elsewhere, "eth0", f"{ELSEWHERE}/24", f"{ELSEWHERE6}/64"),
        ):
            for address in addresses:
                self._ip(f"-n {name} addr add {address} dev {device}{' nodad' if ':' in address else ''}")
            self._ip(f"-n {name} link set {device} up")
        self._ip(f"-n {self.container} route add default via {GATEWAY}")
        self._ip(f"-n {self.container} -6 route add default via {SUBNET.gateway6.ip if SUBNET.gateway6 else ''}")
        self.within(self.host, ["sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        text = rules.render(SUBNET, BRIDGE, nat=True, published=[published], route6=True)
        self.within(self.host, ["/usr/sbin/nft", "-f", "-"], input=text)
        self._lay_out_programs()

    def _ip(self, line: str) -> None:
        subprocess.run(["ip", *line.split()], check=True, capture_output=True)

    def _lay_out_programs(self) -> None:
        """The packages' files as an installation would have them."""
        for package in PACKAGES.iterdir():
            if package.name in ("iptables", "ufw") or package.name.startswith(("libip", "libxtables", "libnf", "libnetf")):
                shutil.copytree(package, self._programs, symlinks=True, dirs_exist_ok=True)
        if (self._programs / "lib").is_dir() and not (self._programs / "lib").is_symlink():
            shutil.copytree(self._programs / "lib", self._programs / "usr/lib", symlinks=True, dirs_exist_ok=True)
        for family in ("iptables", "ip6tables"):
            for end in ("", "-save", "-restore"):
                link = self._programs / f"usr/sbin/{family}{end}"
                link.unlink(missing_ok=True)
                link.symlink_to("xtables-nft-multi")
        shared = self._programs / "usr/share/ufw"
        for file in (shared / "ufw.conf", *(shared / "iptables").glob("*.rules")):  # as the package's postinst does
            shutil.copy(file, self._programs / "etc/ufw" / file.name)

    def within(self, name: str, command: list[str], input: str = "") -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", name, *command], input=input, capture_output=True, text=True, check=False, cwd=ROOT,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def run(self, lines: list[str], input: str = "") -> str:
        """Run lines of shell on the host, where the programs seem to be installed. What they write to files is lost."""
        over, top = self._directory / "over", self._programs
        over.mkdir(exist_ok=True)
        script = ["set -e", "mount --make-rprivate /", f"mount -t tmpfs none {over}"]
        script.append(" ".join(["mkdir", *(f"{over}/{part}" for part in "uvwx")]))
        for part, upper, work in (("usr", "u", "v"), ("etc", "w", "x")):
            layers = f"lowerdir={top}/{part}:/{part},upperdir={over}/{upper},workdir={over}/{work}"
            script.append(f"mount -t overlay -o {layers} none /{part}")
        return self.within(self.host, ["unshare", "-m", "sh", "-c", "\n".join([*script, *lines])], input)

    def state(self, *, ipv6: bool) -> dict[str, str]:
        """What is reached."""
        out = [f"{ELSEWHERE} 9", f"{GATEWAY} 53", *([f"{ELSEWHERE6} 9"] if ipv6 else [])]
        into = [f"{HOST} 8080", *([f"{HOST6} 8080"] if ipv6 else [])]
        found = {}
        for name, wanted in ((self.container, out), (self.elsewhere, into)):
            said = self.within(name, [sys.executable, "-c", CONNECT, *wanted]).split()
            found.update(dict(zip(wanted, said, strict=True)))
        return found

    def closed(self) -> list[str]:
        """The families of which doctor says that a firewall drops what the host passes on."""
        return list(json.loads(self.within(self.host, ["/usr/bin/python3", "-c", SEE])))

    def remove(self) -> None:
        for name in (self.host, self.container, self.elsewhere):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not (PACKAGES / "iptables").is_dir() or not (PACKAGES / "ufw").is_dir():
        pytest.skip("needs Debian's iptables and ufw: make test-packages")
    made = Place(tmp_path)
    try:
        made.make()
        yield made
    finally:
        made.remove()


@pytest.mark.parametrize("installed", [DOCKER, DOCKER_28], ids=["docker.io", "docker-ce 28"])
def test_the_recipe_beside_docker_lets_containers_out_and_clients_in(place: Place, installed: str) -> None:
    assert set(place.state(ipv6=True).values()) == {"reached"}
    place.run(["iptables-restore"], installed)
    place.run(["ip6tables-restore"], installed)
    dropped = place.state(ipv6=True)
    assert [where for where, how in dropped.items() if how == "reached"] == [f"{GATEWAY} 53"]
    assert place.closed() == ["ip", "ip6"]
    lines = recipe("Docker")
    assert len(lines) == 2
    place.run(lines)
    assert place.closed() == ["ip6"]
    assert {place.state(ipv6=True)[where] for where in (f"{ELSEWHERE} 9", f"{HOST} 8080")} == {"reached"}
    place.run(["ip6tables -S DOCKER-USER", *(line.replace("iptables", "ip6tables") for line in lines)])
    assert set(place.state(ipv6=True).values()) == {"reached"}
    assert place.closed() == []


def test_the_recipe_beside_ufw_lets_containers_out_and_clients_in(place: Place) -> None:
    lines = recipe("ufw")
    assert [shlex.split(line)[:2] for line in lines] == [["ufw", "allow"], ["ufw", "route"], ["ufw", "route"]]
    place.run(["ufw --force enable"])
    assert set(place.state(ipv6=True).values()) == {"lost"}
    assert place.closed() == ["ip", "ip6"]
    place.run(["ufw --force enable", *lines])
    assert set(place.state(ipv6=True).values()) == {"reached"}
    assert place.closed() == []
