"""Names of containers, and every path that the product uses.

A container's name is also its host name, a directory below LXC's path and a part of an abstract socket
address, so it is held to what all three accept: one lower-case DNS label.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from lxcfleet.errors import InvalidInput

MAX_NAME = 63
"""Length of a DNS label (RFC 1035)."""

MAX_COUNT = 4096
"""The most containers that one request may name: as many as the uid range that the installer adds has room for."""

MAX_DRAIN = 3600.0
"""The longest drain time, in seconds."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_RULE = "a name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen"
_LABEL_KEY = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,61}[a-zA-Z0-9])?")
_LABEL_VALUE = re.compile(r"[a-zA-Z0-9._/@:+-]{0,255}")


def check_name(name: str) -> str:
    """``name`` itself, if a container may have it; raises InvalidInput."""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} can't be a container's name", why=_RULE)
    return name


def check_label(key: str, value: str) -> tuple[str, str]:
    """The pair itself, if a label may be so; raises InvalidInput."""
    if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
        pair = f"{key}={value}"
        raise InvalidInput(
            f"{pair!r} can't be a label",
            why="a key has 1 to 63 letters, digits and ._/-, a value up to 255 of them and @:+",
        )
    return key, value


def parse_label(text: str) -> tuple[str, str]:
    """``KEY=VALUE`` as a pair; raises InvalidInput."""
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"{text!r} is not a label", hint="write it as KEY=VALUE")
    return check_label(key, value)


def check_variable(name: str, value: str) -> tuple[str, str]:
    """The pair itself, if it can be an environment variable; raises InvalidInput."""
    if not name or "=" in name or any(ord(c) < 33 for c in name) or "\0" in value:
        raise InvalidInput(f"{name!r} can't be the name of an environment variable")
    return name, value


_SIZE = re.compile(r"([0-9]{1,15})([KMGT]?)i?B?", re.IGNORECASE)
_LEAST_SIZE = 4 << 20
_MOST_SIZE = 1 << 50


def parse_size(text: str) -> int:
    """Bytes from a text such as 512M or 2GiB, in steps of 1024; raises InvalidInput."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InvalidInput(f"{text!r} is not a size", hint="write it as 512M or 2G, in whole K, M, G or T; 0 is no limit")
    return check_size(int(match[1]) << 10 * " KMGT".index(match[2].upper() or " "))


def as_size(count: int) -> str:
    """The shortest text that ``parse_size`` reads as ``count`` bytes."""
    unit = 0
    while count and not count % 1024 and unit < 4:
        count, unit = count >> 10, unit + 1
    return f"{count}{' KMGT'[unit]}".rstrip()


def check_size(size: int) -> int:
    """``size`` itself, if it can be an amount of memory or disk space for a container, or 0; raises InvalidInput."""
    if size and not _LEAST_SIZE <= size <= _MOST_SIZE:
        limits = f"{_LEAST_SIZE >> 20} MiB and {_MOST_SIZE >> 40} TiB"
        raise InvalidInput(f"{size} bytes are not between {limits}", hint="0 is no limit")
    return size


def next_free(prefix: str, count: int, taken: Collection[str]) -> tuple[str, ...]:
    """``count`` names PREFIX1, PREFIX2, … that ``taken`` does not have, lowest numbers first."""
    check_count(count)
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        name = f"{prefix}{number}"
        if name not in taken:
            names.append(name)
    check_name(names[-1])
    check_name(names[0])
    return tuple(names)


def first(prefix: str, count: int) -> tuple[str, ...]:
    """PREFIX1 to PREFIXcount."""
    return next_free(prefix, count, ())


def check_count(count: int) -> int:
    """``count`` itself, if so many containers may be asked for at once; raises InvalidInput."""
    if not 1 <= count <= MAX_COUNT:
        raise InvalidInput(f"-n {count} is out of range", hint=f"ask for 1 to {MAX_COUNT} containers")
    return count


def _snapshot(name: str) -> str:
    return f"base-{os.path.basename(name)}"


@dataclass(frozen=True)
class ContainerPaths:
    """Where one container's files are."""

    directory: Path

    @property
    def spec(self) -> Path:
        """What the operator asked for: the record that everything else follows from."""
        return self.directory / "lxcfleet.yaml"

    @property
    def config(self) -> Path:
        """LXC's configuration, written from the spec."""
        return self.directory / "config"

    @property
    def delta(self) -> Path:
        """The overlay's upper directory: the container's only mutable state."""
        return self.directory / "delta"

    @property
    def work(self) -> Path:
        """The overlay's work directory."""
        return self.directory / "work"

    def part_work(self, point: str) -> Path:
        """The work directory of the overlay of a part; see host.mounts."""
        return self.directory / f"work{point.replace('/', '-')}"

    @property
    def pending(self) -> Path:
        """Holds one word while the daemon owes the container an action; see fleet.plan."""
        return self.directory / "pending"

    @property
    def base_record(self) -> Path:
        """What the base was like at its last start; see base.reconcile."""
        return self.directory / "base.json"

    def base_snapshot(self, name: str) -> Path:
        """Its own name for a file of ``Paths.base_snapshots``, so that a copy of its directory has it, too."""
        return self.directory / _snapshot(name)

    @property
    def console_log(self) -> Path:
        """What the container's console, and so an app container's command, printed."""
        return self.directory / "console.log"

    @property
    def lxc_log(self) -> Path:
        """What liblxc had to say about starts and stops."""
        return self.directory / "lxc.log"


@dataclass(frozen=True)
class Paths:
    """Every path of the product. Tests give other roots; nothing else spells a path out."""

    lxc: Path = Path("/var/lib/lxc")
    run: Path = Path("/run/lxcfleet")
    etc: Path = Path("/etc/lxcfleet")

    NEW_PREFIX: ClassVar[str] = ".lxcfleet-new-"
    GONE_PREFIX: ClassVar[str] = ".lxcfleet-gone-"

    @classmethod
    def from_environment(cls) -> Paths:
        """The usual paths, or those that LXCFLEET_LXC, LXCFLEET_RUN and LXCFLEET_ETC name (a fleet for tests)."""
        usual = cls()
        return cls(
            lxc=Path(os.environ.get("LXCFLEET_LXC", usual.lxc)),
            run=Path(os.environ.get("LXCFLEET_RUN", usual.run)),
            etc=Path(os.environ.get("LXCFLEET_ETC", usual.etc)),
        )

    def environment(self) -> dict[str, str]:
        """What ``from_environment`` needs to give these paths again, for child processes."""
        return {"LXCFLEET_LXC": str(self.lxc), "LXCFLEET_RUN": str(self.run), "LXCFLEET_ETC": str(self.etc)}

    def container(self, name: str) -> ContainerPaths:
        """The files of the container ``name``."""
        return ContainerPaths(self.lxc / name)

    def new(self, name: str) -> ContainerPaths:
        """Where ``name`` is put together before it gets its own name."""
        return ContainerPaths(self.lxc / f"{self.NEW_PREFIX}{name}")

    def gone(self, name: str) -> ContainerPaths:
        """Where ``name`` waits to be removed after it lost its own name."""
        return ContainerPaths(self.lxc / f"{self.GONE_PREFIX}{name}")

    @property
    def socket(self) -> Path:
        """The API."""
        return self.run / "lxcfleet.sock"

    @property
    def attach_socket(self) -> Path:
        """Where exec and shell hand over their file descriptors."""
        return self.run / "attach.sock"

    @property
    def lock(self) -> Path:
        """Held by the daemon, its launcher and the launcher's children; see daemon."""
        return self.run / "daemon.lock"

    @property
    def config_file(self) -> Path:
        """The operator's settings."""
        return self.etc / "lxcfleet.yaml"

    @property
    def mask_rules(self) -> Path:
        """The operator's additions to the mask."""
        return self.etc / "mask.d"

    @property
    def mask_image(self) -> Path:
        """The mask as an ext4 image, which every clone mounts."""
        return self.run / "mask.ext4"

    @property
    def mask_record(self) -> Path:
        """What the mask image was made from, to tell when it is out of date."""
        return self.run / "mask.json"

    @property
    def base_mount(self) -> Path:
        """Mount point of the base, in private mount namespaces only."""
        return self.run / "base"

    @property
    def mask_mount(self) -> Path:
        """Mount point of the mask, in private mount namespaces only."""
        return self.run / "mask"

    @property
    def next_mask_mount(self) -> Path:
        """Where the next mask is mounted until it takes the place of the one before, in private mount namespaces only."""
        return self.run / "mask.next"

    @property
    def root_mount(self) -> Path:
        """Mount point of a container's overlay, in private mount namespaces only."""
        return self.run / "root"

    @property
    def part_mount(self) -> Path:
        """Where the overlays of parts are put together, in private mount namespaces only."""
        return self.run / "part"

    @property
    def health(self) -> Path:
        """How the containers' health was last; see fleet.prober."""
        return self.run / "health.json"

    @property
    def user_namespace(self) -> Path:
        """Where a container's user namespace is bound to, in private mount namespaces only."""
        return self.run / "user"

    @property
    def rollout(self) -> Path:
        """The rollout that is under way, or was last; see patch.driver."""
        return self.run / "rollout.json"

    @property
    def base_snapshots(self) -> Path:
        """What the base was like at containers' last starts; see base.reconcile."""
        return self.lxc / ".lxcfleet-base"

    def base_snapshot(self, name: str) -> Path:
        """One of them."""
        return self.base_snapshots / _snapshot(name)

    @property
    def sysctl_file(self) -> Path:
        """The kernel limits that were raised, for the next boot."""
        return Path("/etc/sysctl.d/60-lxcfleet.conf")

    @property
    def running_record(self) -> Path:
        """What runs, for the next boot; see fleet.boot."""
        return self.lxc / ".lxcfleet-running"

    @property
    def resolv_conf(self) -> Path:
        """The resolv.conf that clones have, while the fleet has a name server."""
        return self.run / "resolv.conf"

    @property
    def network_record(self) -> Path:
        """Which bridge there is, and whose addresses; see fleet.bridging."""
        return self.run / "network.json"

    @property
    def notice(self) -> Path:
        """The package manager's hook touches this file whenever the host's packages changed."""
        return self.run / "patched"

    @property
    def notice_done(self) -> Path:
        """Which change of ``notice`` was dealt with."""
        return self.run / "patched.done"

    @property
    def hosts(self) -> Path:
        """One file per name that is to be found: the name server watches this directory."""
        return self.run / "hosts"

    @property
    def leases(self) -> Path:
        """What each container's DHCP client has to say; see host.dhcp."""
        return self.run / "leases"

    @property
    def clients(self) -> Path:
        """The process ids of the containers' DHCP clients."""
        return self.run / "clients"

    @property
    def dnsmasq_config(self) -> Path:
        """The name server's configuration."""
        return self.run / "dnsmasq.conf"

    @property
    def dnsmasq_pid(self) -> Path:
        """The name server's process id."""
        return self.run / "dnsmasq.pid"

    @property
    def responder_pid(self) -> Path:
        """The process id of the server of SRV records."""
        return self.run / "responder.pid"
