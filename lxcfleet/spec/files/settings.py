"""The operator's settings: /etc/lxcfleet/lxcfleet.yaml, every key optional. A row declares each key once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.spec.container.addresses import AUTO, OFF, parse4, parse6
from lxcfleet.spec.container.logs import MAX_BURST, MAX_RATE
from lxcfleet.spec.container.secrets import SecretSource, SourcesType
from lxcfleet.spec.files.profiles import Profile, ProfilesType, load_directory, with_places
from lxcfleet.spec.policies.cves import CveSettings
from lxcfleet.spec.policies.rollout import RolloutSettings
from lxcfleet.spec.policies.windows import PatchSettings
from lxcfleet.spec.reading import ondisk, strict_yaml
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.names import MAX_DRAIN
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import CheckedSection, SectionType, read_section, row, rows_of, section
from lxcfleet.spec.reading.swap import Swap
from lxcfleet.spec.reading.terms import MAX_CPUS, MAX_PIDS, MAX_STOP_TIMEOUT, MAX_WEIGHT, PIDS, Addresses, NetworkMode
from lxcfleet.spec.reading.types import Choice, Flag, Number, Size, Text, Whole

MAX_WORKERS = 64
PROFILES = "profiles.d"
"""The directory of profiles, beside the file of settings."""
_INTERFACE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]{0,14}")
_NEVER_BRIDGES = ("lo", "all", "default")
"""The loopback interface, and names that the kernel gives no interface, as its switches for all of them have them."""
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class LogLevel(StrEnum):
    """The lowest level of messages that the daemon writes to its log."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class NetworkSettings(CheckedSection):
    """The fleet's bridge. A change that would leave containers behind is not taken over, neither by a reload nor by a
    restart of lxcfleetd: the old value holds until they are gone, and the log says so."""

    bridge: str = row(Text(), "Its name. Changes while no connected container runs.", default="lxcfleet0")
    addresses: Addresses = row(
        Choice(Addresses), "own: lxcfleet makes the bridge and gives addresses. dhcp: the bridge is one of the host's, which"
        " lxcfleet uses and leaves alone, and addresses come from the DHCP server there. Changes while there are no"
        " connected containers.", default=Addresses.OWN,
    )
    ipv4: str = row(
        Text(), "A range such as 10.201.0.0/16, or auto: a /16 that collides with nothing on the host. Changes while there"
        " are no connected containers.", default=AUTO,
    )
    ipv6: str = row(
        Text(), "A range, auto (a unique local one of the host's own) or none. Changes while there are no connected"
        " containers.", default=AUTO,
    )
    nat: bool = row(Flag(), "Whether containers reach other networks under the host's address.", default=True)
    dns: bool = row(
        Flag(), "Whether the fleet has a name server, for NAME.DOMAIN. Containers that run get to know at their restart.",
        default=True,
    )
    domain: str = row(
        Text(), "The domain that follows the containers' names. Containers that run search the new one from their"
        " restart on.",
        default="fleet",
    )
    default: NetworkMode = row(
        Choice(NetworkMode, (NetworkMode.BRIDGE, NetworkMode.NONE)), "The network of containers that ask for none: bridge or"
        " none. Never the host's: that has to be asked for.", default=NetworkMode.BRIDGE,
    )
    guard: bool = row(
        Flag(), "Whether containers are kept from sending under other MAC and IP addresses than their own.", default=True
    )
    host_access: bool = row(
        Flag(), "Whether containers may connect to the host itself; if not, to its name server only.", default=True
    )
    drain: float = row(
        Seconds(0, MAX_DRAIN),
        "Seconds that containers with ports stay up after they left names and ports, before they are stopped.", default=5.0,
    )  # fmt: skip

    @property
    def dhcp(self) -> bool:
        """Whether the bridge belongs to the operator, and a DHCP server gives the addresses."""
        return self.addresses is Addresses.DHCP

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        if self.dhcp:
            yield from self._problems_of_dhcp()
        if not _INTERFACE.fullmatch(self.bridge):
            yield "bridge", f"{self.bridge!r} can't be an interface's name: 1 to 15 letters, digits and ._-"
        elif self.bridge in _NEVER_BRIDGES:
            yield "bridge", f"no bridge can be called {self.bridge!r}"
        if not _DOMAIN.fullmatch(self.domain):
            yield "domain", f"{self.domain!r} is not a domain in lower case"
        elif self.domain.rpartition(".")[2] == "localhost":
            yield "domain", f"names in {self.domain!r} are the machine's own, which resolvers do not ask for (RFC 6761)"
        for key, text, parse_range in (("ipv4", self.ipv4, parse4), ("ipv6", self.ipv6, parse6)):
            if text not in (AUTO, OFF) or (key, text) == ("ipv4", OFF):
                try:
                    parse_range(text)
                except InvalidInput as error:
                    yield key, error.message.partition(": ")[2]

    def _problems_of_dhcp(self) -> Iterator[tuple[str, str]]:
        """Keys that would have no effect, or a misleading one, on a bridge that belongs to the operator."""
        if self.bridge == NetworkSettings.bridge:
            yield "bridge", "with `addresses: dhcp` it is the name of a bridge that the host has, such as br0"
        if self.ipv4 != AUTO:
            yield "ipv4", "with `addresses: dhcp` the DHCP server has the range"
        if self.ipv6 not in (AUTO, OFF):
            yield "ipv6", "with `addresses: dhcp` it is auto (as the network's router says) or none"
        if not self.host_access:
            yield "host_access", "with `addresses: dhcp` the host's own firewall has to say that"


@dataclass(frozen=True)
class MetricsSettings(CheckedSection):
    """The access of Prometheus over the network, beside the API's socket."""

    listen: str = row(
        Text(), "The address and port for /metrics and /1.0/targets, such as 127.0.0.1:9753 or [::1]:9753, or none.",
        default=OFF,
    )  # fmt: skip

    @property
    def address(self) -> tuple[str, int] | None:
        """Address and port to listen on; None: do not listen. Raises ValueError."""
        if self.listen == OFF:
            return None
        parts = re.fullmatch(r"(?:\[(.+)\]|([^:]+)):([0-9]{1,5})", self.listen)
        if parts is None or not 0 < int(parts[3]) < 65536:
            raise ValueError("it has no port")
        return str(ip_address(parts[1] or parts[2])), int(parts[3])

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        try:
            _ = self.address
        except ValueError as error:
            yield "listen", f"{self.listen!r} is no address with a port such as 127.0.0.1:9753: {error}"


@dataclass(frozen=True)
class AppsSettings:
    """How releases of apps are kept."""

    keep: int = row(
        Whole(0, 1000), "So many releases of an app are kept when another one is sealed: older ones that no container has,"
        " and that `app undo` does not need, are removed then; 0: none is.", default=0,
    )  # fmt: skip


class LogTarget(StrEnum):
    """The receiver of the lines that containers print."""

    AUTO = "auto"
    """journald where it runs, else nobody."""
    JOURNAL = "journal"
    SYSLOG = "syslog"
    NONE = "none"


@dataclass(frozen=True)
class LogsSettings(CheckedSection):
    """Where lines that containers print on their consoles go, besides the file that `lxcfleet logs` reads."""

    to: LogTarget = row(
        Choice(LogTarget), "auto (journald where it runs, else nobody), journal, syslog (as RFC 5424), or none.",
        default=LogTarget.AUTO,
    )
    socket: str = row(
        Text(), "The datagram socket of journald or syslog; empty: /run/systemd/journal/socket, or /dev/log.", default=""
    )
    rate: int = row(
        Whole(0, MAX_RATE), "Lines a second that one container may print before some are left out, which is told; 0: any"
        " number.", default=1000,
    )
    burst: int = row(Whole(1, MAX_BURST), "Lines that it may print at once beyond that.", default=10_000)

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        if self.socket and not self.socket.startswith("/"):
            yield "socket", f"{self.socket!r} is no absolute path"


@dataclass(frozen=True)
class Config:
    """All settings."""

    workers: int = row(
        Whole(0, MAX_WORKERS), "How many containers are started at the same moment; 0: two per core.", default=0
    )
    stop_timeout: float = row(
        Seconds(0, MAX_STOP_TIMEOUT),
        "Seconds until a stop becomes a kill, where neither the command nor the container says.", default=10.0,
    )
    console_log_kib: int = row(
        Whole(4, 1 << 20),
        "How much of a container's console output is kept, twice: the file in use and the one before it.", default=1024,
    )
    alive_time: float = row(
        Seconds(0, 3600), "Seconds that an app container without a check must have been alive to count as healthy.",
        default=1.0,
    )
    memory: int = row(Size(), "Memory that a new container may use at most, such as 512M; 0: no limit.", default=0)
    swap: int | None = row(
        Swap(), "Swap space that a new container may use at most beside its memory, such as 1G; 0: none; max: no limit.",
        usual="max",
    )
    cpus: float = row(
        Number(0, MAX_CPUS), "Processor time that a new container may use at most, in processors; 0: no limit.", default=0.0
    )
    cpu_weight: int | None = row(
        Whole(1, MAX_WEIGHT), "A new container's share of the processors where they don't suffice for all.", usual="100"
    )
    io_weight: int | None = row(
        Whole(1, MAX_WEIGHT), "A new container's share of the disks' time where that does not suffice for all; takes a disk"
        " whose scheduler goes by weights.", usual="100",
    )
    disk: int = row(
        Size(), "Disk space that a new container may take at most, such as 10G; 0: no limit. Takes project quotas; not for"
        " privileged ones.", default=0,
    )
    pids: int = row(
        Whole(0, MAX_PIDS), "Processes and threads that a new container may have at most; 0: no limit.", default=PIDS
    )
    reconcile: bool = row(
        Flag(),
        "Whether a container's own records of packages and accounts are merged with the host's at each start.", default=True,
    )
    log_level: LogLevel = row(
        Choice(LogLevel), "The least severe messages that the daemon writes to its log: debug, info, warning or error.",
        default=LogLevel.INFO,
    )
    network: NetworkSettings = section(NetworkSettings)
    metrics: MetricsSettings = section(MetricsSettings)
    logs: LogsSettings = section(LogsSettings)
    apps: AppsSettings = section(AppsSettings)
    rollout: RolloutSettings = section(RolloutSettings)
    patch: PatchSettings = section(PatchSettings)
    cve: CveSettings = section(CveSettings)
    profiles: Mapping[str, Profile] = row(
        ProfilesType(), "Defaults by name, for `lxcfleet create --profile NAME`.", default={}
    )  # fmt: skip

    secrets: Mapping[str, SecretSource] = row(
        SourcesType(), "Where the values of secrets come from, by name, for containers that no fleet file declares them for.",
        default={},
    )  # fmt: skip

    @property
    def start_slots(self) -> int:
        """How many containers are started at the same moment."""
        return self.workers or 2 * (os.cpu_count() or 1)


def load(path: Path, tolerate: Callable[[str], object] | None = None) -> Config:
    """The settings in ``path``, or the defaults where it does not exist.

    ``tolerate``: see ``parse``. Raises InvalidInput with all complaints, each with the file and the key.
    """
    try:
        text = ondisk.content(path, ondisk.SMALL) if path.exists() else b""
        return _with_directory(parse(text, str(path), tolerate), path, tolerate)
    except OSError as error:
        raise HostError.from_os_error("the settings can't be read", error) from error


def _with_directory(config: Config, path: Path, tolerate: Callable[[str], object] | None) -> Config:
    """The settings with the profiles that files of their own have, in the directory profiles.d beside ``path``."""
    directory = path.parent / PROFILES
    complaints: list[str] = []
    more = load_directory(directory, complaints.append)
    for name, profile in more.items():
        file = directory / f"{name}.yaml"
        if name in config.profiles:
            complaints.append(f"{file}: the profile {name} is in {path}, too")
        for problem in profile.problems:
            (tolerate or complaints.append)(f"{file}: {problem}")
    if complaints:
        raise InvalidInput(f"{directory} is not valid; nothing of the settings is used", why="\n".join(complaints))
    return replace(config, profiles={**config.profiles, **more}) if more else config


def parse(text: bytes, where: str, tolerate: Callable[[str], object] | None = None) -> Config:
    """The settings in ``text``; ``where`` names it in complaints. Raises InvalidInput.

    ``tolerate`` is called for each profile that contradicts itself, instead of a complaint. Earlier versions accepted such
    profiles, and the daemon must start after an upgrade. No container can be created with them.
    """
    message = f"{where} is not valid; nothing of it is used"
    try:
        data = strict_yaml.load(text)
    except ValueError as error:
        raise InvalidInput(message, why=f"{where}: {error}") from error
    fields = Fields(data, where)
    config = read_section(Config, fields)
    for name, profile in config.profiles.items():
        for problem in profile.problems:
            if tolerate is None:
                fields.complain("profiles", f"{name}: {problem}")
            else:
                tolerate(f"{where}: profiles: {name}: {problem}")
    fields.finish(message)
    return replace(config, profiles=with_places(config.profiles, text, where)) if config.profiles else config


def describe(config: Config) -> str:
    """The settings in force as YAML, in the form of the file."""
    lines: list[str] = []
    for key, each in rows_of(Config).items():
        value = each.render(getattr(config, key))
        if isinstance(each.type, SectionType | ProfilesType | SourcesType) and value:
            lines += [f"{key}:", *_block(value, "  ")]
        else:
            lines.append(f"{key}: {plain(value)}")
    return "\n".join(lines) + "\n"


def _block(values: Mapping[str, Any], indent: str) -> Iterator[str]:
    """The lines of a mapping: one for each key, and for a profile one for each of its keys."""
    for key, value in values.items():
        name = key if _WORD.fullmatch(key) and key not in _NO_TEXTS else strict_yaml.inline(key)
        # YAML takes longer keys only in this form.
        head = f"{indent}{name}:" if len(name) <= strict_yaml.LONGEST_KEY else f"{indent}? {name}\n{indent}:"
        if isinstance(value, dict) and indent == "  ":
            yield head
            yield from _block(value, "    ")
        else:
            yield f"{head} {plain(value)}"


_WORD = re.compile(r"[a-z][a-z0-9_./]{0,63}|[0-9]{1,3}%")
_NO_TEXTS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
"""Words that YAML 1.1 does not read as texts."""


def plain(value: object) -> str:
    """A value in the form that people write, if YAML reads that as the same value; otherwise quoted."""
    if isinstance(value, str) and _WORD.fullmatch(value) and value not in _NO_TEXTS:
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return strict_yaml.inline(value)
