"""The host's devices that a container may be given, by name. An allow-list: most devices are the host. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lxcfleet.errors import InvalidInput


@dataclass(frozen=True)
class Device:
    """A device, or a directory of devices of one kind."""

    path: str
    """Below /dev."""
    rule: str
    """The numbers that the devices cgroup allows; the kernel's devices.txt."""
    nodes: str = ""
    """A pattern of the nodes in the directory that are given; empty: it is no directory."""


DEVICES = {
    "tun": Device("net/tun", "c 10:200"),
    "fuse": Device("fuse", "c 10:229"),
    "kvm": Device("kvm", "c 10:232"),
    # Those that only compute: with the other ones, whoever has them sees and sets the host's screens.
    "dri": Device("dri", "c 226:*", "renderD*"),
}


def parse_device(text: str) -> str:
    """The name of a device. Raises InvalidInput."""
    name = text.removeprefix("/dev/").removeprefix("net/")
    if name not in DEVICES:
        raise InvalidInput(f"{text!r} is no device that a container can be given", hint=f"these are: {', '.join(DEVICES)}")
    return name


def check_devices(names: Sequence[str]) -> None:
    """Raise InvalidInput for a list that names a device twice."""
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InvalidInput(f"the device {name} is named twice")
