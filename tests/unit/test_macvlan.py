"""Interfaces of containers on those of the host: what is left of them when something fails."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pyroute2 import NetlinkError

from lxcfleet.errors import HostError
from lxcfleet.host.net import macvlan, uplink
from lxcfleet.host.process import entering
from lxcfleet.launcher.children import networks
from lxcfleet.launcher.items.network import RejoinItem
from lxcfleet.paths import Paths


class Killed(BaseException):
    """A kill -9 of the process that does it."""


class Kernel:
    """The interfaces of a network namespace, as netlink shows and changes them."""

    def __init__(self) -> None:
        self.links: dict[str, dict[str, Any]] = {"eth9": {"kind": "veth"}}
        self.failing: dict[str, int] = {}
        """Errors of calls, by the call."""
        self.killing = ""
        """The call before which the process is killed."""
        self.was_up: list[str] = []
        self.calls: list[str] = []
        """Those that change something."""

    def _fail(self, call: str) -> None:
        if call == self.killing:
            raise Killed
        if call in self.failing:
            raise NetlinkError(self.failing[call], os.strerror(self.failing[call]))
        if call != "lookup":
            self.calls.append(call)

    def link_lookup(self, ifname: str) -> list[int]:
        self._fail("lookup")
        return [list(self.links).index(ifname) + 1] if ifname in self.links else []

    def link(self, command: str, **said: Any) -> None:
        self._fail(f"link {command}")
        name = said.pop("ifname", None) or list(self.links)[said.pop("index") - 1]
        if command == "add":
            if name in self.links:
                raise NetlinkError(errno.EEXIST, "File exists")
            self.links[name] = said
        elif name not in self.links:
            raise NetlinkError(errno.ENODEV, "No such device")
        elif command == "del":
            del self.links[name]
        else:
            self._set(name, said)

    def _set(self, name: str, said: dict[str, Any]) -> None:
        hardware = self.links[name].get("address")
        others = [each for other, each in self.links.items() if other != name and each.get("state") == "up"]
        if said.get("state") == "up" and hardware and hardware in [each.get("address") for each in others]:
            raise NetlinkError(errno.EADDRINUSE, "Address already in use")
        self.was_up += [name]
        self.links[name].update(said)

    def get_links(self, ifname: str) -> list[Any]:
        found = [self.links[ifname]] if ifname in self.links else []
        return [SimpleNamespace(get_nested=lambda *_, kind=each["kind"]: kind) for each in found]

    def addr(self, command: str, *, address: str, **_: Any) -> None:
        self._fail(f"addr {command} {address}")

    def route(self, command: str, *, gateway: str, **_: Any) -> None:
        self._fail(f"route {command} {gateway}")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(macvlan, "_LOCK", tmp_path / "lock")

    @contextlib.contextmanager
    def session(what: str) -> Iterator[Kernel]:
        try:
            yield made
        except NetlinkError as error:
            raise HostError(f"{what} failed", why=str(error)) from error

    monkeypatch.setattr(macvlan, "session", session)
    monkeypatch.setattr("lxcfleet.host.net.sysctl.refuse_ipv6", lambda _: None)
    monkeypatch.setattr("lxcfleet.host.net.uplink.names", lambda prefix: [n for n in made.links if n.startswith(prefix)])
    return made


MAC = "06:0a:0b:0c:0d:0e"


CARD = macvlan.Card(
    "web1", 1, 1.0, "eth9", MAC, False, "192.0.2.5/24", "192.0.2.255", "192.0.2.1", "2001:db8::5/64", "2001:db8::1"
)


@pytest.mark.parametrize(
    "call",
    ["lookup", "addr add 192.0.2.5", "addr add 2001:db8::5", "link set", "route add 192.0.2.1", "route add 2001:db8::1"],
)
def test_half_an_interface_is_taken_away_again(kernel: Kernel, call: str) -> None:
    """It counted as mended, and the container had no address, or no way out."""
    kernel.links["eth0"] = {"kind": "macvlan", "address": MAC}
    kernel.failing[call] = errno.ENOMEM
    with pytest.raises(HostError):
        macvlan._set_up(CARD)
    assert "eth0" not in kernel.links
    kernel.links["eth0"] = {"kind": "macvlan", "address": MAC}
    kernel.failing.clear()
    macvlan._set_up(CARD)
    assert kernel.links["eth0"]["state"] == "up"


def test_an_interface_has_its_addresses_before_it_is_up(kernel: Kernel) -> None:
    """What was broken off after it was made, and before it had its IPv6 address, was never mended."""
    kernel.links["eth0"] = {"kind": "macvlan", "address": MAC}
    macvlan._set_up(CARD)
    assert kernel.calls == [
        "addr add 192.0.2.5", "addr add 2001:db8::5", "link set", "route add 192.0.2.1", "route add 2001:db8::1"
    ]  # fmt: skip


def test_a_route_that_a_router_gave_meanwhile_stays(kernel: Kernel) -> None:
    kernel.links["eth0"] = {"kind": "macvlan", "address": MAC}
    kernel.failing["route add 2001:db8::1"] = errno.EEXIST
    macvlan._set_up(CARD)
    assert kernel.links["eth0"]["state"] == "up"


def test_a_container_is_given_all_of_its_interface_in_one_visit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two could be broken off between them: then it had an interface, and nobody gave it the rest."""
    cards: list[tuple[macvlan.Card, Path]] = []
    monkeypatch.setattr(macvlan, "rejoin", lambda *said: cards.append(said))
    answer, reply = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with answer, reply:
        networks.rejoin([cast(RejoinItem, CARD._asdict())], reply, Paths())
        assert json.loads(answer.recv(9000))["error"] is None
    assert cards == [(CARD, Paths().joining("web1"))]


@pytest.mark.parametrize(
    "call",
    ["link add", "addr add 192.0.2.5", "addr add 2001:db8::5", "link set", "route add 192.0.2.1", "route add 2001:db8::1"],
)
def test_an_interface_whose_maker_was_killed_is_made_anew(
    kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Before, what the kill left counted as connected: the container had no address, or no way out, until its restart."""
    mark = tmp_path / "joining" / "web1"

    @contextlib.contextmanager
    def visit(*_: object) -> Iterator[int]:
        yield 0

    monkeypatch.setattr(entering, "process", visit)
    monkeypatch.setattr(entering, "network", visit)
    monkeypatch.setattr(uplink, "has_card", lambda _: "eth0" in kernel.links)
    kernel.killing = call
    with pytest.raises(Killed):
        macvlan.rejoin(CARD, mark)
    assert uplink.has_half(mark, CARD.pid, CARD.began)
    assert not uplink.has_half(mark, CARD.pid, CARD.began + 1), "the mark of another run says nothing"
    kernel.killing, kernel.calls = "", []
    macvlan.rejoin(CARD, mark)
    assert kernel.calls == [
        "link del", "link add", "addr add 192.0.2.5", "addr add 2001:db8::5", "link set", "route add 192.0.2.1",
        "route add 2001:db8::1",
    ]  # fmt: skip
    assert (kernel.links["eth0"]["state"], mark.exists()) == ("up", False)
    macvlan.rejoin(CARD, mark)
    assert kernel.calls[-1] == "route add 2001:db8::1", "what is whole stays as it is"


PLACE = macvlan.UplinkPlace("eth9", 0, "eth9", "fleet", "eth9", MAC)
DEAD = 2**22 + 1
"""No process has it: the kernel's PID_MAX_LIMIT is 2**22."""


def probe(pid: int, **more: Any) -> dict[str, dict[str, Any]]:
    return {f"lt{pid}": {"kind": "macvlan", "address": MAC, "state": "up", **more}}


@pytest.mark.parametrize("pid", [DEAD, os.getpid()], ids=["another", "the same"])
def test_what_a_killed_process_left_keeps_no_mac_address(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, pid: int) -> None:
    monkeypatch.setattr(macvlan, "FREE_SECONDS", 0.0)
    kernel.links |= probe(pid)
    macvlan.await_free(PLACE)
    assert (list(kernel.links), kernel.was_up) == (["eth9"], [f"lt{os.getpid()}"])
    kernel.links |= probe(pid)
    macvlan.ensure(PLACE)
    assert list(kernel.links) == ["eth9"]


def test_what_another_start_removes_at_the_same_moment_is_no_obstacle(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def get_links(ifname: str) -> list[Any]:
        kernel.links.pop(ifname)
        raise NetlinkError(errno.ENODEV, "No such device")

    kernel.links["lt999999999"] = {"kind": "macvlan"}
    monkeypatch.setattr(kernel, "get_links", get_links)
    macvlan._remove_left(kernel)
    assert "lt999999999" not in kernel.links


def test_what_others_have_stays(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(macvlan, "FREE_SECONDS", 0.0)
    others = probe(os.getppid(), address="") | probe(DEAD, kind="veth", address="") | {"ltx": {"kind": "macvlan"}}
    kernel.links |= others
    macvlan.await_free(PLACE)
    assert list(kernel.links) == ["eth9", *others]


@pytest.mark.parametrize("call", ["lookup", "link set"])
def test_nothing_is_left_when_it_fails(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    link = kernel.link

    def add(command: str, **said: Any) -> None:
        link(command, **said)
        if command == "add":
            kernel.failing[call] = errno.ENOMEM

    monkeypatch.setattr(kernel, "link", add)
    with pytest.raises(HostError):
        macvlan.await_free(PLACE)
    assert list(kernel.links) == ["eth9"]


VLAN = macvlan.UplinkPlace("eth9", 30, "lv30-x", "one", "VLAN 30 of eth9", "")


def test_a_vlan_whose_maker_was_killed_gets_its_alias(kernel: Kernel) -> None:
    kernel.links["lv30-x"] = {"kind": "vlan"}
    macvlan.ensure(VLAN)
    assert kernel.links["lv30-x"]["ifalias"] == "lxcfleet:one"


def test_two_fleets_at_once_lose_no_user_of_a_vlan(kernel: Kernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.host.net.uplink.users", lambda name: kernel.links[name].get("ifalias", "")[9:].split())
    kernel.links["lv30-x"] = {"kind": "vlan", "ifalias": "lxcfleet:one two"}
    locked = []
    link = kernel.link

    def spied(command: str, **said: Any) -> None:
        if "ifalias" in said or said.get("index") == 2:
            with open(tmp_path / "lock", "rb") as file, pytest.raises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked.append(command)
        link(command, **said)

    monkeypatch.setattr(kernel, "link", spied)
    macvlan.ensure(VLAN._replace(user="three"))
    assert kernel.links["lv30-x"]["ifalias"] == "lxcfleet:one two three"
    for user in ("two", "three"):
        macvlan.release("lv30-x", user)
    assert kernel.links["lv30-x"]["ifalias"] == "lxcfleet:one"
    macvlan.release("lv30-x", "one")
    assert "lv30-x" not in kernel.links
    assert locked == ["set", "set", "set", "set", "del"]
