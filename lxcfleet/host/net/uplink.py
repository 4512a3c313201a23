"""The host's interfaces as uplinks of containers, as /proc and /sys show them: cheap enough for the daemon."""

from __future__ import annotations

import contextlib
from pathlib import Path

from lxcfleet.errors import Unsupported, WrongState
from lxcfleet.host.net import interfaces
from lxcfleet.spec.container.uplinks import VLAN_PREFIX, Uplink

_NET = Path("/sys/class/net")
_VLANS = Path("/proc/net/vlan/config")
_ETHERNET = "1"
"""ARPHRD_ETHER, linux/if_arp.h."""
MARK = "lxcfleet:"
"""The alias of an interface that lxcfleet made begins so; the fleets that use it follow."""


def index(name: str) -> int | None:
    """The number of the interface; another one once it was away and is there again. None: it is not there."""
    with contextlib.suppress(OSError, ValueError):
        return int((_NET / name / "ifindex").read_text(encoding="ascii"))
    return None


def check_parent(uplink: Uplink) -> None:
    """Raise Unsupported or WrongState if containers can't be on the network of that interface of the host's."""
    parent = uplink.parent
    own = _NET / parent
    message = f"containers can't be on {uplink.words}"
    if index(parent) is None:
        raise WrongState(message, why=f"the host has no interface {parent}", hint="`ip -br link` shows those that it has")
    if _text(own / "type") != _ETHERNET or parent == "lo":
        raise Unsupported(message, why=f"{parent} is no Ethernet interface", hint="name another one, or use --network bridge")
    if (own / "phy80211").exists() or (own / "wireless").exists():
        why = f"{parent} is a wireless interface, which passes on frames of one MAC address only"
        raise Unsupported(message, why=why, hint="use --network bridge")
    master = _link(own / "master")
    if master:
        hint = f"a bridge: `network: {{bridge: {master}, addresses: dhcp}}` in lxcfleet.yaml; a bond: parent={master}"
        raise WrongState(message, why=f"{parent} belongs to {master}", hint=hint)
    if not interfaces.is_up(parent):
        raise WrongState(message, why=f"{parent} is down", hint=f"ip link set {parent} up, and have it so at boot")
    if uplink.vlan:
        other = other_vlan(uplink)
        if other is not None:
            raise WrongState(
                message, why=f"that VLAN is {other} already, which lxcfleet did not make",
                hint=f"use that interface: --uplink parent={other}",
            )  # fmt: skip


def _text(file: Path) -> str:
    with contextlib.suppress(OSError):
        return file.read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _link(file: Path) -> str:
    """The name of what a link leads to; empty: it is no link, or gone."""
    with contextlib.suppress(OSError):
        return file.readlink().name
    return ""


def other_vlan(uplink: Uplink) -> str | None:
    """The interface that the VLAN has already, if lxcfleet did not make it: the kernel lets a VLAN have one."""
    for name, (number, parent) in _vlans().items():
        if number == str(uplink.vlan) and parent == uplink.parent and not (name == uplink.device and _is_ours(name)):
            return name
    return None


def _vlans() -> dict[str, tuple[str, str]]:
    """The numbers and the parents of all interfaces for VLANs. The host has a thousand other interfaces, and few of these."""
    rows = [[part.strip() for part in line.split("|")] for line in _text(_VLANS).splitlines()[2:]]
    return {row[0]: (row[1], row[2]) for row in rows if len(row) == 3}


def _is_ours(device: str) -> bool:
    """Whether lxcfleet made the interface that has the name of its own: also if it was killed before it wrote the alias."""
    return _text(_NET / device / "ifalias") == "" or bool(users(device))


def users(device: str) -> list[str]:
    """The fleets that use an interface for a VLAN that lxcfleet made; none if it did not make it."""
    alias = _text(_NET / device / "ifalias")
    return alias.removeprefix(MARK).split() if alias.startswith(MARK) else []


def names(prefix: str) -> list[str]:
    """The host's interfaces whose names begin so."""
    with contextlib.suppress(OSError):
        return sorted(each.name for each in _NET.glob(f"{prefix}*"))
    return []


def made(user: str) -> list[str]:
    """The interfaces for VLANs that this fleet uses."""
    return [each for each in _vlans() if each.startswith(VLAN_PREFIX) and user in users(each)]


def joining(pid: int, began: float) -> str:
    """The text of the file that is there while the container with this process 1 is given its interface."""
    return f"{pid} {began}\n"


def has_half(mark: Path, pid: int, began: float) -> bool:
    """Whether the interface that this run of a container has may lack addresses and routes: whoever gave it was killed."""
    return _text(mark) == joining(pid, began).strip()


def has_card(pid: int) -> bool:
    """Whether the network namespace of the process has the interface that a container is given."""
    lines = _text(Path(f"/proc/{pid}/net/dev")).splitlines()[2:]
    return any(line.partition(":")[0].strip() == "eth0" for line in lines)
