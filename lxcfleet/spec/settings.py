"""The operator's settings: /etc/lxcfleet/lxcfleet.yaml, every key optional."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.spec import combinations, rollout, strict_yaml, windows
from lxcfleet.spec.addresses import AUTO, OFF, parse4, parse6
from lxcfleet.spec.fields import askable
from lxcfleet.spec.names import MAX_DRAIN
from lxcfleet.spec.reader import Fields
from lxcfleet.spec.rollout import ProfileRollout, RolloutSettings
from lxcfleet.spec.rows import read_said, render_said
from lxcfleet.spec.terms import MAX_CPUS, MAX_PIDS, PIDS, Addresses, Network
from lxcfleet.spec.windows import PatchSettings

MAX_WORKERS = 64
_INTERFACE = re.compile(r"[a-zA-Z][a-zA-Z0-9_.-]{0,14}")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


@dataclass(frozen=True)
class Profile:
    """Defaults that ``create --profile NAME`` takes over; what the command line says comes first."""

    said: Mapping[str, Any] = field(default_factory=dict)
    """Values by key of the table, ``spec.fields``."""
    rollout: ProfileRollout = field(default_factory=ProfileRollout)
    """How its containers take part in rollouts; see below."""


@dataclass(frozen=True)
class NetworkSettings:
    """The fleet's bridge. A change that would leave containers behind is not taken over, neither by a reload nor by a
    restart of lxcfleetd: the old value holds until they are gone, and the log says so."""

    bridge: str = "lxcfleet0"
    """Its name. Changes while no connected container runs."""
    addresses: Addresses = Addresses.OWN
    """own: lxcfleet makes the bridge and gives addresses. dhcp: the bridge is one of the host's, which lxcfleet uses and
    leaves alone, and addresses come from the DHCP server there. Changes while there are no connected containers."""
    ipv4: str = AUTO
    """A range such as 10.201.0.0/16, or auto: a /16 that collides with nothing on the host. Changes while there are no
    connected containers."""
    ipv6: str = AUTO
    """A range, auto (a unique local one of the host's own) or none. Changes while there are no connected containers."""
    nat: bool = True
    """Whether containers reach other networks under the host's address."""
    dns: bool = True
    """Whether the fleet has a name server, for NAME.DOMAIN. Containers that run get to know at their restart."""
    domain: str = "fleet"
    """What follows the containers' names. Containers that run search the new one from their restart on."""
    default: Network = Network.BRIDGE
    """What containers get for which nothing is asked: bridge or none. Never the host's: that is to be said."""
    guard: bool = True
    """Whether containers are kept from sending under other MAC and IP addresses than their own."""
    host_access: bool = True
    """Whether containers may connect to the host itself; if not, to its name server only."""
    drain: float = 5.0
    """Seconds that containers with ports stay up after they left names and ports, before they are stopped."""

    @property
    def dhcp(self) -> bool:
        """Whether the bridge is the operator's."""
        return self.addresses is Addresses.DHCP


@dataclass(frozen=True)
class MetricsSettings:
    """What Prometheus may read over the network, beside the API's socket."""

    listen: str = OFF
    """The address and port for /metrics and /1.0/targets, such as 127.0.0.1:9753 or [::1]:9753, or none."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Address and port; None: nowhere. Raises ValueError."""
        if self.listen == OFF:
            return None
        parts = re.fullmatch(r"(?:\[(.+)\]|([^:]+)):([0-9]{1,5})", self.listen)
        if parts is None or not 0 < int(parts[3]) < 65536:
            raise ValueError("it has no port")
        return str(ip_address(parts[1] or parts[2])), int(parts[3])


@dataclass(frozen=True)
class Config:
    """All settings."""

    workers: int = 0
    """How many containers are started at the same moment; 0: two per core."""
    stop_timeout: float = 10.0
    """Seconds until a stop becomes a kill, where the command does not say."""
    console_log_kib: int = 1024
    """How much of a container's console output is kept, twice: the file in use and the one before it."""
    alive_time: float = 1.0
    """Seconds that an app container without a check must have been alive to count as healthy."""
    memory: int = 0
    """Memory that a new container may use at most, such as 512M; 0: no limit."""
    cpus: float = 0.0
    """Processor time that a new container may use at most, in processors; 0: no limit."""
    disk: int = 0
    """Disk space that a new container may take at most, such as 10G; 0: no limit. Takes project quotas; not for privileged
    ones."""
    pids: int = PIDS
    """Processes and threads that a new container may have at most; 0: no limit."""
    reconcile: bool = True
    """Whether a container's own records of packages and accounts are merged with the host's at each start."""
    log_level: str = "info"
    """What the daemon writes to its log: debug, info, warning or error, and what is worse."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    patch: PatchSettings = field(default_factory=PatchSettings)
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    @property
    def start_slots(self) -> int:
        """How many containers are started at the same moment."""
        return self.workers or 2 * (os.cpu_count() or 1)



def load(path: Path) -> Config:
    """The settings in ``path``, or the defaults where it does not exist.

    Raises InvalidInput with all complaints, each with the file and the key.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise HostError.from_os_error("the settings can't be read", error) from error
    return parse(text, str(path))


def parse(text: bytes, where: str) -> Config:
    """The settings in ``text``; ``where`` names it in complaints. Raises InvalidInput."""
    message = f"{where} is not valid; nothing of it is used"
    try:
        data = strict_yaml.load(text)
    except ValueError as error:
        raise InvalidInput(message, why=f"{where}: {error}") from error
    fields = Fields(data, where)
    default = Config()
    profiles = fields.nested("profiles")
    config = Config(
        workers=fields.integer("workers", default.workers, 0, MAX_WORKERS),
        stop_timeout=fields.number("stop_timeout", default.stop_timeout, 0, 86400),
        console_log_kib=fields.integer("console_log_kib", default.console_log_kib, 4, 1 << 20),
        alive_time=fields.number("alive_time", default.alive_time, 0, 3600),
        memory=fields.size("memory", default.memory),
        cpus=fields.number("cpus", default.cpus, 0, MAX_CPUS),
        disk=fields.size("disk", default.disk),
        pids=fields.integer("pids", default.pids, 0, MAX_PIDS),
        reconcile=fields.flag("reconcile", default.reconcile),
        log_level=fields.text("log_level", default.log_level),
        network=_network(fields.nested("network")),
        metrics=_metrics(fields.nested("metrics")),
        rollout=rollout.read(fields.nested("rollout"), default.rollout),
        patch=windows.read(fields.nested("patch")),
        profiles={name: _profile(profiles.nested(name)) for name in profiles.keys()},
    )
    if config.log_level not in ("debug", "info", "warning", "error"):
        fields.complain("log_level", f"{config.log_level!r} is none of debug, info, warning, error")
    fields.finish(message)
    return config


def _network(fields: Fields) -> NetworkSettings:
    default = NetworkSettings()
    settings = NetworkSettings(
        bridge=fields.text("bridge", default.bridge),
        addresses=fields.choice("addresses", Addresses, default.addresses),
        ipv4=fields.text("ipv4", default.ipv4),
        ipv6=fields.text("ipv6", default.ipv6),
        nat=fields.flag("nat", default.nat),
        dns=fields.flag("dns", default.dns),
        domain=fields.text("domain", default.domain),
        default=fields.choice("default", Network, default.default),
        guard=fields.flag("guard", default.guard),
        host_access=fields.flag("host_access", default.host_access),
        drain=fields.number("drain", default.drain, 0, MAX_DRAIN),
    )
    fields.close()
    if settings.dhcp:
        _check_dhcp(fields, settings)
    if settings.default is Network.HOST:
        fields.complain("default", "is to be bridge or none")
    if not _INTERFACE.fullmatch(settings.bridge):
        fields.complain("bridge", f"{settings.bridge!r} can't be an interface's name: 1 to 15 letters, digits and ._-")
    if not _DOMAIN.fullmatch(settings.domain):
        fields.complain("domain", f"{settings.domain!r} is not a domain in lower case")
    for key, text, parse_range in (("ipv4", settings.ipv4, parse4), ("ipv6", settings.ipv6, parse6)):
        if text not in (AUTO, OFF) or (key, text) == ("ipv4", OFF):
            try:
                parse_range(text)
            except InvalidInput as error:
                fields.complain(key, error.message.partition(": ")[2])
    return settings


def _check_dhcp(fields: Fields, settings: NetworkSettings) -> None:
    """What has no meaning, or another one than it seems, on a bridge that is not ours."""
    if settings.bridge == NetworkSettings.bridge:
        fields.complain("bridge", "with `addresses: dhcp` it is the name of a bridge that the host has, such as br0")
    if settings.ipv4 != AUTO:
        fields.complain("ipv4", "with `addresses: dhcp` the DHCP server has the range")
    if settings.ipv6 not in (AUTO, OFF):
        fields.complain("ipv6", "with `addresses: dhcp` it is auto (as the network's router says) or none")
    if not settings.host_access:
        fields.complain("host_access", "with `addresses: dhcp` the host's own firewall has to say that")


def _metrics(fields: Fields) -> MetricsSettings:
    settings = MetricsSettings(listen=fields.text("listen", MetricsSettings.listen))
    fields.close()
    try:
        _ = settings.address
    except ValueError as error:
        fields.complain("listen", f"{settings.listen!r} is no address with a port such as 127.0.0.1:9753: {error}")
    return settings


def _profile(fields: Fields) -> Profile:
    said = read_said(askable(profile=True).values(), fields)
    profile = Profile(said, rollout.read_profile(fields.nested("rollout")))
    fields.close()
    for key, problem in combinations.of_profile(said):
        fields.complain(key, problem)
    return profile


def describe(config: Config) -> str:
    """The settings in force as YAML, the way the file would say them."""
    lines = [
        f"workers: {config.workers}",
        f"stop_timeout: {config.stop_timeout:g}",
        f"console_log_kib: {config.console_log_kib}",
        f"alive_time: {config.alive_time:g}",
        f"memory: {config.memory}",
        f"cpus: {config.cpus:g}",
        f"disk: {config.disk}",
        f"pids: {config.pids}",
        f"reconcile: {str(config.reconcile).lower()}",
        f"log_level: {config.log_level}",
        "network:",
        f"  bridge: {config.network.bridge}",
        f"  addresses: {config.network.addresses}",
        f"  ipv4: {config.network.ipv4}",
        f"  ipv6: {config.network.ipv6}",
        f"  nat: {str(config.network.nat).lower()}",
        f"  dns: {str(config.network.dns).lower()}",
        f"  domain: {config.network.domain}",
        f"  default: {config.network.default}",
        f"  guard: {str(config.network.guard).lower()}",
        f"  host_access: {str(config.network.host_access).lower()}",
        f"  drain: {config.network.drain:g}",
        "metrics:",
        f"  listen: {strict_yaml.inline(config.metrics.listen)}",
        "rollout:",
        *(f"  {key}: {strict_yaml.inline(value)}" for key, value in config.rollout.to_json().items()),
        "patch:",
        f"  policy: {config.patch.policy}",
        f"  quiet: {config.patch.quiet:g}",
        f"  windows: {strict_yaml.inline(list(config.patch.windows))}",
        f"  time_zone: {strict_yaml.inline(config.patch.time_zone)}",
        "profiles:" if config.profiles else "profiles: {}",
    ]
    for name, profile in config.profiles.items():
        lines.append(f"  {strict_yaml.inline(name)}:")
        lines += [f"    {line}" for line in _describe_profile(profile)]
    return "\n".join(lines) + "\n"


def _describe_profile(profile: Profile) -> list[str]:
    values = {**render_said(askable(profile=True), profile.said), "rollout": profile.rollout.to_json()}
    return [f"{key}: {strict_yaml.inline(value)}" for key, value in values.items()]
