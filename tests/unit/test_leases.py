"""Addresses that a DHCP server gave: one container's trouble is no other's."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.host.net import dhcp
from lxcfleet.network.leases import Leases
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.uplinks import Uplink
from lxcfleet.spec.reading.terms import NetworkMode

from .network_parts import Names, context_of, own_paths, run


def on_uplink(name: str, number: int) -> Container:
    spec = Spec(name, network=NetworkMode.UPLINK, uplink=Uplink("eth0"), hardware=f"06:0a:0b:0c:0d:0{number}")
    container = Container(name, spec)
    run(container)
    return container


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(dhcp.DhcpClient, "running", lambda _: 1)
    made = own_paths(tmp_path)
    made.leases.mkdir(parents=True)
    for name, number in (("web1", 5), ("web2", 6)):
        (made.leases / name).write_text(f"address 192.0.2.{number}/24 192.0.2.1\n")
    return made


def taken_over(paths: Paths, monkeypatch: pytest.MonkeyPatch, failure: Exception | None = None) -> list[tuple[object, ...]]:
    containers = on_uplink("web1", 1), on_uplink("web2", 2)
    context = context_of(paths, *containers)
    discovery = Names(context).discovery

    def moved(container: Container) -> None:
        if failure is not None and container.name == "web1":
            raise failure

    monkeypatch.setattr(discovery, "moved", moved)
    leases = Leases(context, discovery)

    async def play() -> None:
        await leases.keep()
        leases.close()

    asyncio.run(play())
    return [container.leased for container in containers]


BOTH = [(IPv4Address("192.0.2.5"),), (IPv4Address("192.0.2.6"),)]


def test_name_servers_that_cannot_be_written_keep_nobody_from_its_address(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.uplink_names("web1").mkdir(parents=True)
    assert taken_over(paths, monkeypatch) == BOTH
    assert paths.uplink_names("web2").read_text() == "nameserver 192.0.2.1\n"


def test_damaged_name_servers_are_written_anew(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    paths.uplink_names("web1").parent.mkdir(parents=True)
    paths.uplink_names("web1").write_bytes(b"\xff\n")
    assert taken_over(paths, monkeypatch) == BOTH
    assert paths.uplink_names("web1").read_text() == "nameserver 192.0.2.1\n"


def test_a_name_that_cannot_be_written_keeps_nobody_from_its_address(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    assert taken_over(paths, monkeypatch, OSError("full")) == BOTH


def test_the_name_of_a_containers_interface_is_no_more_than_a_name(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root of a container could keep all others from their addresses by an interface with an odd name."""
    read = Path.read_bytes
    line = b"fd000000000000000000000000000002 02 40 00 80 "

    def table(file: Path) -> bytes:
        return line + b"\xff\x1cz\x1fz\x1fz\x1fz\x1fz\x1fz\n" if file.name == "if_inet6" else read(file)

    monkeypatch.setattr(Path, "read_bytes", table)
    assert dhcp.addresses6(1) == f"{line.decode()}??z?z?z?z?z?z\n"
    assert taken_over(paths, monkeypatch) == BOTH
