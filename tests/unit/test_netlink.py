"""Lists of the kernel's that change while they are read, and interfaces that go between a look and an act."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2 import NetlinkError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from lxcfleet.errors import HostError
from lxcfleet.host.net import bridge_port, interfaces, netlink, rtnetlink, sysctl
from lxcfleet.host.net.bridge_port import Switches
from lxcfleet.spec.container.addresses import OUR_HARDWARE, cable


class Kernel:
    """Interrupts the first ``times`` readings of its list of interfaces."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.asked: list[dict[str, Any]] = []

    def get_links(self, **options: Any) -> list[str]:
        self.asked.append(options)
        self.left -= 1
        if self.left >= 0:
            raise NetlinkDumpInterrupted
        return ["lo"]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "time", SimpleNamespace(sleep=lambda _: None))


def test_a_list_that_changed_while_it_was_read_is_read_again() -> None:
    kernel = Kernel(2)
    assert netlink._Whole(kernel).get_links(ifname="lo") == ["lo"]
    assert kernel.asked == [{"ifname": "lo"}] * 3


def test_a_list_that_changes_whenever_it_is_read_is_not_taken_for_whole() -> None:
    kernel = Kernel(1000)
    with pytest.raises(NetlinkDumpInterrupted):
        netlink._Whole(kernel).get_links()
    assert len(kernel.asked) == netlink._TRIES


class Host:
    """Interfaces, of which some go as soon as somebody has looked for them."""

    def __init__(self, names: list[str], going: str, code: int = errno.ENODEV) -> None:
        self.names, self.going, self.code = names, going, code
        self.did: list[tuple[str, str]] = []

    def link_lookup(self, ifname: str) -> list[int]:
        return [self.names.index(ifname) + 1] if ifname in self.names else []

    def _act(self, index: int, what: str) -> None:
        name = self.names[index - 1]
        if name == self.going:
            raise NetlinkError(self.code, "as the kernel says it")
        self.did.append((what, name))

    def link(self, command: str, *, index: int, **_: Any) -> None:
        self._act(index, command)

    def get_links(self, *indexes: int, ifname: str = "") -> list[Any]:
        index = indexes[0] if indexes else self.link_lookup(ifname)[0]
        self._act(index, "look")
        said = {"IFLA_ADDRESS": f"{OUR_HARDWARE}00:00:00:01", "IFLA_MTU": 9000}
        return [_Row(said, index=index)]

    def get_default_routes(self, **_: Any) -> list[Any]:
        return [_Row({"RTA_OIF": self.names.index("eth0") + 1})]

    def changed(self) -> list[tuple[str, str]]:
        """What was done, but for looks."""
        return [each for each in self.did if each[0] != "look"]


class _Row(dict[str, Any]):
    def __init__(self, said: dict[str, Any], **fields: Any) -> None:
        super().__init__(fields)
        self.get_attr = said.get


@contextlib.contextmanager
def _on(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(netlink, "IPRoute", lambda: contextlib.nullcontext(host))
        yield


def test_a_veth_that_goes_keeps_no_other_one_from_the_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(["br", "one", "two"], going="one")
    netlink._attach(host, 1, ["one", "two"])
    assert host.did == [("set", "two")]


def test_a_veth_that_goes_keeps_no_other_one_from_the_operators_bridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_port, "check_bridge", lambda _: None)
    monkeypatch.setattr(netlink, "_ours", lambda *_: False)
    host = Host(["br", "one", "two"], going="one")
    with _on(host, monkeypatch):
        netlink.join_bridge("br", ["one", "two"])
    assert host.changed() == [("set", "two")]


@pytest.mark.parametrize(("asked", "mtu"), [(0, 9000), (1400, 1400)])
def test_the_mtu_of_a_new_bridge_is_set_and_not_given_as_it_is_made(
    monkeypatch: pytest.MonkeyPatch, asked: int, mtu: int
) -> None:
    """The kernel changes one that a bridge was made with, as its ports come and go: to 1500 when the last one goes. The next
    container took that over, and sent what the uplink drops."""
    did: list[tuple[str, Any]] = []

    class New(Host):
        def link(self, command: str, **options: Any) -> None:
            did.append((command, options.get("mtu")))
            if command == "add":
                self.names.append(options["ifname"])

    with _on(New(["eth0"], going=""), monkeypatch):
        netlink.ensure_bridge("br", f"{OUR_HARDWARE}00:00:00:01", [], [], asked)
    assert did == [("add", None), ("set", mtu)]


def test_our_bridges_look_for_no_reports_about_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The guard drops these. With snooping, each port that comes or goes had the kernel start the timers of all ports anew:
    of a thousand containers, each paid 0.6 ms more at a start or an end."""
    monkeypatch.setattr(interfaces, "_NET", tmp_path)
    monkeypatch.setattr(sysctl, "refuse_ipv6", lambda _: None)
    further = "lg0ac90000-1"
    for bridge in ("br", further):
        (tmp_path / bridge / "bridge").mkdir(parents=True)
        for name in interfaces.SWITCHED_OFF:
            on = name == "multicast_snooping"
            (tmp_path / bridge / "bridge" / name).write_text(f"{on:d}\n", encoding="ascii")
    did = []

    class Noting(Host):
        def link(self, command: str, **options: Any) -> None:
            if options.get("kind") == "bridge":
                did.append((self.names[options.pop("index") - 1], options))

    with _on(Noting(["br", further, *cable(further)], going=""), monkeypatch):
        netlink.ensure_bridge("br", f"{OUR_HARDWARE}00:00:00:01", [], [], 1500)
        netlink.extend_bridge("br", further, [])
    assert did == [(name, {"kind": "bridge", "br_mcast_snooping": 0}) for name in ("br", further)]


def test_an_uplink_that_goes_is_no_reason_to_have_no_bridge() -> None:
    assert netlink._uplink_mtu(Host(["eth0"], going="eth0")) == netlink._MTU_DEFAULT
    assert netlink._uplink_mtu(Host(["eth0"], going="")) == 9000


def test_a_bridge_is_removed_though_its_cable_goes_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = cable("lg0ac90000-1")
    host = Host(["br", here, "lg0ac90000-1"], going=here)
    monkeypatch.setattr(interfaces, "ports", lambda _: {here})
    with _on(host, monkeypatch):
        netlink.remove_bridge("br")
    assert host.changed() == [("del", "lg0ac90000-1"), ("del", "br")]


def test_a_bridge_that_somebody_else_removes_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(["br"], going="br")
    with _on(host, monkeypatch):
        netlink.remove_bridge("br")
    assert not host.did


def test_other_failures_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge_port, "check_bridge", lambda _: None)
    monkeypatch.setattr(netlink, "_ours", lambda *_: False)
    with _on(Host(["br", "one"], going="one", code=errno.ENOBUFS), monkeypatch), pytest.raises(HostError):
        netlink.join_bridge("br", ["one"])


class Ports:
    """What the kernel is asked to do with the ports ``numbers``, in words; it answers ``code`` to all of that."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, numbers: dict[str, int], code: int = 0) -> None:
        self.numbers, self.code = numbers, code
        self.asked: list[tuple[int, str]] = []
        monkeypatch.setattr(interfaces, "index", self._number)
        monkeypatch.setattr(rtnetlink, "ask", self._ask)
        monkeypatch.setattr(sysctl, "refuse_ipv6", lambda name: self.asked.append((numbers[name], "no IPv6")))

    def _number(self, name: str) -> int:
        if name not in self.numbers:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return self.numbers[name]

    def _ask(self, requests: Sequence[rtnetlink.Request]) -> list[int]:
        for kind, body, _ in requests:
            number = struct.unpack_from("=i", body, 4)[0]
            if kind == 28:  # RTM_NEWNEIGH: a header of 12 bytes, then the MAC address
                self.asked.append((number, body[16:22].hex(":")))
            else:  # RTM_SETLINK: a header of 16 bytes, then IFLA_PROTINFO with switches of 8 bytes each
                found = [struct.unpack_from("=HHB", body, at)[1:] for at in range(20, len(body), 8)]
                names = {4: "hairpin", 5: "guard", 9: "flood", 33: "isolated"}
                self.asked.append((number, " ".join(f"{names[which]}={on}" for which, on in sorted(found))))
        return [self.code] * len(requests)


def test_a_port_gets_all_its_switches_in_one_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, each switch was a file of its own, which a busy kernel had to be asked for again and again."""
    ports = Ports(monkeypatch, {"lf1": 7, "lf2": 8})
    bridge_port.set_up("lf1", Switches(hairpin=False, isolated=True, only="02:4c:0a:c9:00:03"))
    bridge_port.set_up("lf2", Switches(hairpin=True, isolated=False, leaf=False))
    assert ports.asked == [
        (7, "02:4c:0a:c9:00:03"), (7, "hairpin=0 flood=0 isolated=1"), (7, "no IPv6"),
        (8, "hairpin=1 guard=0 flood=1 isolated=0"), (8, "no IPv6"),
    ]  # fmt: skip


def test_a_port_that_others_may_have_set_gets_all_that_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the operator's bridge ports may be set in ways of its own. That the kernel refuses the last two costs nothing."""
    asked: list[rtnetlink.Request] = []

    def ask(requests: Sequence[rtnetlink.Request]) -> list[int]:
        asked.extend(requests)
        return [0, 0, *([errno.ENETDOWN] * (len(requests) - 2))]

    Ports(monkeypatch, {"lf1": 7})
    monkeypatch.setattr(rtnetlink, "ask", ask)
    switches = Switches(hairpin=False, isolated=True, only="02:4c:0a:c9:00:03", mtu=1400)
    bridge_port.set_up("lf1", switches, anew=True)
    pin, whole, state, limit = asked
    assert (pin.kind, {each.kind for each in (whole, state, limit)}) == (28, {19})
    kinds = {struct.unpack_from("=H", whole.body, at + 2)[0]: whole.body[at + 4] for at in range(20, len(whole.body), 8)}
    assert kinds == {4: 0, 5: 0, 6: 0, 8: 1, 9: 0, 10: 0, 12: 0, 27: 1, 28: 0, 29: 0, 30: 1, 32: 0, 33: 1, 39: 0}
    assert state.body[20:] == struct.pack("=HHB3x", 5, 1, 3)
    assert limit.body[16:] == struct.pack("=HHI", 8, 4, 1400)
    asked.clear()
    bridge_port.set_up("lf1", switches._replace(mtu=0), anew=True)
    assert len(asked) == 2
    assert len(asked[1].body) == 20 + 3 * 8


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ENXIO, errno.EOPNOTSUPP])
def test_a_port_that_goes_has_no_switches(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """The kernel answers so if the port goes after its number was asked for, or if it is on no bridge."""
    ports = Ports(monkeypatch, {"going": 7}, code)
    for name in ("gone", "going"):
        bridge_port.set_up(name, Switches(hairpin=True, isolated=True, only="02:4c:0a:c9:00:03"))
    assert (7, "no IPv6") not in ports.asked
    ports.code = errno.EPERM
    with pytest.raises(HostError, match="going: the bridge's port can't be set up"):
        bridge_port.set_up("going", Switches(hairpin=True, isolated=True))


def test_the_kernel_tells_why_an_interface_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own socket.if_nametoindex() gave no errno. So a container whose command had ended before its port was set up
    counted as not made, and was removed or started again."""
    assert interfaces.index("lo") == 1
    with pytest.raises(OSError, match="No such device") as caught:
        interfaces.index("lf-nosuch0")
    assert caught.value.errno == errno.ENODEV
    asked: list[object] = []
    monkeypatch.setattr(rtnetlink, "ask", asked.append)
    bridge_port.set_up("lf-nosuch0", Switches(hairpin=False, isolated=True))
    assert not asked


def test_a_port_whose_ipv6_cannot_be_switched_off_is_set_up_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs time alone."""
    ports = Ports(monkeypatch, {"lf1": 7})

    def refuse(_: str) -> None:
        raise HostError("read-only")

    monkeypatch.setattr(sysctl, "refuse_ipv6", refuse)
    bridge_port.set_up("lf1", Switches(hairpin=True, isolated=False))
    assert ports.asked == [(7, "hairpin=1 flood=1 isolated=0")]
