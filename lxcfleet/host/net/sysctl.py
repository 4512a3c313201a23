"""The kernel's switches for the network, in /proc/sys/net; Documentation/networking/ip-sysctl."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from lxcfleet.errors import HostError

_SYSCTL = Path("/proc/sys/net")
_CONF6 = _SYSCTL / "ipv6" / "conf"


def forward(interfaces: Iterable[str]) -> None:
    """Let IPv4 packets that come in by these interfaces be forwarded, and no others.

    Interfaces of the host come and go (a VPN's, another program's veth): one that is gone by now has nothing to forward.
    Raises HostError. conf/IF/forwarding counts for packets that come in by that interface. IPv6's switch would make the
    host a router that no longer listens to other routers, and may so cut it off: the operator has to
    set that one.
    """
    for name in interfaces:
        with contextlib.suppress(_NoInterface):
            _switch_on(name, "forwarding", "forwarding can't be switched on")


def route_localhost(bridge: str) -> None:
    """Let packets from 127.0.0.1 go out by the bridge, so that published ports answer on the host itself.

    This alone would also let packets to 127.0.0.1 in by the bridge. network.rules drops these, so load those rules first.
    Raises HostError.
    """
    _switch_on(bridge, "route_localnet", "ports can't be published to the host itself")


def forwards(interface: str) -> bool | None:
    """Whether IPv4 packets that come in by the interface are forwarded; None: there is no such interface."""
    return _is_on(f"ipv4/conf/{interface}/forwarding")


def routes_localhost(bridge: str) -> bool | None:
    """Whether packets from 127.0.0.1 may go out by the bridge; None: there is no such interface."""
    return _is_on(f"ipv4/conf/{bridge}/route_localnet")


def _is_on(name: str) -> bool | None:
    said = _read(name)
    return said == "1" if said else None


class _NoInterface(HostError):
    """There is no such interface."""


def _switch_on(interface: str, switch: str, complaint: str) -> None:
    """Switch on what the kernel does for IPv4 at an interface. Raises HostError, and _NoInterface if it is not there."""
    file = _SYSCTL / "ipv4" / "conf" / interface / switch
    try:
        file.write_text("1\n", encoding="ascii")
    except OSError as error:
        kind = _NoInterface if isinstance(error, FileNotFoundError) else HostError
        raise kind.from_os_error(complaint, error, path=file) from error


def refuse_ipv6(interface: str) -> None:
    """Have the host itself neither speak nor listen by IPv6 there, where the interface and IPv6 are. Raises HostError."""
    file = f"{interface}/disable_ipv6"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC, dir_fd=_interfaces6())
        try:
            os.write(descriptor, b"1\n")
        finally:
            os.close(descriptor)
    except FileNotFoundError:  # nor is there such a switch in a kernel without IPv6
        pass
    except OSError as error:
        raise HostError.from_os_error("IPv6 can't be switched off", error, path=_CONF6 / file) from error


@cache
def _interfaces6() -> int:
    """A descriptor of the directory that has the switches of the host's interfaces for IPv6, kept from its first use on.

    Each look by the whole path takes longer the more containers run, as the kernel goes through their directories of the same
    name: 9 us with 50, 59 us with 400, and more where both processors do it (proc_sys_compare() in proc_sysctl.c).
    """
    return os.open(_CONF6, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def routes_ipv6() -> bool:
    """Whether the host forwards IPv6 packets."""
    return _read("ipv6/conf/all/forwarding") == "1"


def ipv6_available() -> bool:
    """Whether the kernel has IPv6 and it is not switched off for all interfaces."""
    return _read("ipv6/conf/all/disable_ipv6") == "0"


def takes_ipv6(interface: str) -> bool:
    """Whether the interface can have IPv6 addresses."""
    return _read(f"ipv6/conf/{interface}/disable_ipv6") == "0"


def has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all, switched off or not."""
    return (_SYSCTL / "ipv6").exists()


def filters_bridges() -> bool:
    """Whether frames on bridges pass the rules for what the host forwards (br_netfilter, which Docker loads)."""
    return _read("bridge/bridge-nf-call-iptables") == "1"


def _read(name: str) -> str:
    try:
        return (_SYSCTL / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
