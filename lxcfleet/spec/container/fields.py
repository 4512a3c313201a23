"""The table of fields: everything that can be asked for a container, each key declared once.

A new field is an attribute of ``SpecFields`` with its row, and the code that carries it out; nothing else. Options of
``create``, the reader and writer of specs, profiles, differences, ``info``, JSON Schema, the reference and Ansible's module
follow from the row. ``combinations`` has the rules on several fields together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from lxcfleet.spec.container.addresses import check_addresses, parse_address
from lxcfleet.spec.container.apps import AppType, AppUse
from lxcfleet.spec.container.depends import DependsType
from lxcfleet.spec.container.devices import check_devices, parse_device
from lxcfleet.spec.container.health import HealthCheck, HealthType
from lxcfleet.spec.container.hooks import HOOKS, NO_HOOKS, Hooks
from lxcfleet.spec.container.io import IoLimit, IoType
from lxcfleet.spec.container.logs import LOGS, USUAL_LOGS, Logs
from lxcfleet.spec.container.ports import (
    Port,
    Publication,
    check_ports,
    check_publications,
    gather_publications,
    parse_port,
    parse_publication,
    spread_publication,
)
from lxcfleet.spec.container.raw_lxc import RawType
from lxcfleet.spec.container.restart import Restart, RestartType
from lxcfleet.spec.container.secrets import SecretsType, SecretUse
from lxcfleet.spec.container.snapshots import NO_SCHEDULE, SCHEDULE, Schedule
from lxcfleet.spec.container.unit_names import check_units, parse_unit
from lxcfleet.spec.container.uplinks import NO_UPLINK, UPLINK, NetworkType, Uplink
from lxcfleet.spec.container.volumes import VolumeMount, VolumesType
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.names import (
    MAX_DRAIN,
    check_alias,
    check_aliases,
    check_label,
    check_name,
    check_user,
    check_variable,
)
from lxcfleet.spec.reading.rows import Effect, Row, row, rows_of
from lxcfleet.spec.reading.swap import Swap
from lxcfleet.spec.reading.terms import (
    MAX_CPUS,
    MAX_GENERATION,
    MAX_MBIT,
    MAX_ORDER,
    MAX_PIDS,
    MAX_STOP_TIMEOUT,
    MAX_WEIGHT,
    PIDS,
    Affinity,
    Init,
    NetworkMode,
    StopSignal,
    Victim,
)
from lxcfleet.spec.reading.types import Choice, Command, Flag, Interface, Items, Number, Pairs, Size, Text, Whole

_GIVEN = "lxcfleet gives it"
_OWNED = "only `lxcfleet apply` gives a container to a fleet"
_MADE = "the ids of all of its files go with it"

NO_COMMAND = "leave out the command (`set`: command=), or have an app container (init: app)"


@dataclass(frozen=True)
class SpecFields:
    """The table. Attributes are as the product uses them; ``spec.Spec`` adds what follows from them."""

    name: str = row(
        Text(check_name), "Its name.", default="",
        create=False, profile=False, stored=False, change=Effect.NEVER, why="its files, its host name and DNS go by it",
    )
    init: Init = row(
        Choice(Init), "What runs as process 1: system, the host's systemd, or app, its one command under a small init.",
        default=Init.SYSTEM, usual="app with a command, else system", option=("--init",),
    )
    command: tuple[str, ...] = row(
        Command(), "The command and its arguments, as a list (app containers only).", default=(),
        init=Init.APP, init_why=f"it runs systemd\n{NO_COMMAND}",
    )
    environment: Mapping[str, str] = row(
        Pairs(check_variable, secret=True), "Variables of its command, by name.", default={},
        option=("-e", "--env"), metavar="NAME=VALUE", secret=True,
        init=Init.APP,
        init_why="systemd hands none on\nwrite it to a unit's Environment= inside, or give a command after --",
    )
    labels: Mapping[str, str] = row(
        Pairs(check_label), "Labels, by key.", default={}, change=Effect.LIVE, option=("-l", "--label"), metavar="KEY=VALUE",
    )
    profile: str | None = row(
        Text(), "The profile of the settings that it starts from.", option=("--profile",), metavar="PROFILE", profile=False,
        change=Effect.NEVER, why="it says what the container was created from",
    )
    first_id: int | None = row(
        Whole(65536, 2**32 - 65537), "The first of its uids and gids on the host; none: it is privileged.",
        create=False, profile=False, change=Effect.NEVER, why=_MADE,
    )
    network: NetworkMode = row(
        NetworkType(NetworkMode), "bridge: an address on the fleet's bridge; none: a loopback interface only; uplink: a place"
        " on the network of one of the host's interfaces, which `uplink` names; host: the host's own interfaces, with no wall"
        " between (app containers only).", default=NetworkMode.NONE, setting="network.default", option=("--network",),
    )
    uplink: Uplink = row(
        UPLINK, "With `network: uplink`: the interface of the host's and, if asked for, a VLAN on it, an address and a"
        " gateway: parent, vlan, address, gateway. Without an address, a DHCP server gives it one.", default=NO_UPLINK,
        option=("--uplink",), metavar="'parent=IF [vlan=N] [address=A/LEN gateway=A] [address6=A/LEN gateway6=A]'",
    )
    address: IPv4Interface | None = row(
        Interface(IPv4Interface), "Its address on the fleet's bridge.", create=False, profile=False, change=Effect.NEVER,
        why=_GIVEN,
    )
    address6: IPv6Interface | None = row(
        Interface(IPv6Interface), "Its IPv6 address on the fleet's bridge.", create=False, profile=False,
        change=Effect.NEVER, why=_GIVEN,
    )
    static_addresses: tuple[IPv4Address | IPv6Address, ...] = row(
        Items(parse_address, check_addresses, lambda each: str(each.version)),
        "Addresses of your choice in the fleet's ranges, one IPv4 and one IPv6 address at the most. Unless you choose both,"
        " the IPv6 address has the same number in its range as the IPv4 address.", default=(),
        option=("--address",), metavar="ADDRESS",
    )
    hardware: str | None = row(
        Text(), "Its MAC address on a bridge of the operator's, where a DHCP server gives it its address.",
        create=False, profile=False, change=Effect.NEVER, why=_GIVEN,
    )
    ports: tuple[Port, ...] = row(
        Items(parse_port, check_ports, lambda port: (port.service, port.protocol)),
        "The ports that its program listens on, for SRV records: _http._tcp.NAME.fleet.", default=(),
        change=Effect.LIVE, option=("--port",), metavar="SERVICE=PORT[/udp]",
    )
    aliases: tuple[str, ...] = row(
        Items(check_alias, check_aliases, str),
        "Further names of it below the fleet's domain. One that several containers have leads to the healthy ones of them.",
        default=(), change=Effect.LIVE, option=("--alias",), metavar="NAME",
    )
    publish: tuple[Publication, ...] = row(
        Items(
            parse_publication, check_publications, lambda each: (each.name,), spread_publication,
            gather_publications,
        ),
        "Ports of the host, or ranges of them, that lead to its own. Those that containers with the same label share lead to"
        " the healthy ones of them.", default=(),
        change=Effect.LIVE, option=("-p", "--publish"), metavar="[ADDRESS:]HOST[-LAST]:CONTAINER[-LAST][/udp]",
    )
    affinity: Affinity = row(
        Choice(Affinity), "Which of those that share a published port a new connection goes to. none: any one, by chance;"
        " client: the same one for all connections from one address, while it is led to.", default=Affinity.NONE,
        change=Effect.LIVE, option=("--affinity",),
    )
    receive_mbit: float = row(
        Number(0, MAX_MBIT), "Megabits per second that it may receive from the bridge at most, such as 100; 0: no limit.",
        default=0.0, change=Effect.LIVE, option=("--receive-mbit",), metavar="N",
    )
    send_mbit: float = row(
        Number(0, MAX_MBIT), "Megabits per second that it may send to the bridge at most; 0: no limit.",
        default=0.0, change=Effect.LIVE, option=("--send-mbit",), metavar="N",
    )
    isolated: bool = row(
        Flag(), "Whether it is kept from other isolated containers, and from the host but for its names.", default=False,
        option=("--isolated",),
    )
    drain: float | None = row(
        Seconds(0, MAX_DRAIN), "Seconds that it stays up after it left names and ports, before it is stopped.",
        setting="network.drain", taken_over=False, change=Effect.LIVE, option=("--drain",), metavar="TIME",
    )
    health: HealthCheck | None = row(
        HealthType(), "How to tell that it does its work: one of `exec` (a list), `tcp` and `http`, with `interval`,"
        " `timeout`, `retries` and `start_period`; or `ignore_units`, a list of units that may fail.", change=Effect.LIVE,
    )
    memory: int = row(
        Size(), "Memory that it may use at most, such as 512M; 0: no limit.", default=0,
        setting="memory", change=Effect.LIVE, option=("--memory",), metavar="SIZE",
    )
    swap: int | None = row(
        Swap(), "Swap space that it may use at most beside its memory, such as 1G; 0: none; max: no limit.", usual="max",
        setting="swap", change=Effect.LIVE, option=("--swap",), metavar="SIZE|max",
    )
    oom: Victim | None = row(
        Choice(Victim), "Which of its processes are killed when its memory limit is reached. container: all of them, so it"
        " ends, and its restart policy decides; process: the one that uses most.", usual="container for an app"
        " container, process for a system container", change=Effect.LIVE, option=("--oom",),
    )
    cpus: float = row(
        Number(0, MAX_CPUS), "Processors that it may use at most, such as 1.5; 0: no limit.", default=0.0,
        setting="cpus", change=Effect.LIVE, option=("--cpus",), metavar="N",
    )
    cpu_weight: int | None = row(
        Whole(1, MAX_WEIGHT), "Its share of the processors where they don't suffice for all: one with 200 gets twice as much"
        " as one with 100.", usual="100", setting="cpu_weight", change=Effect.LIVE, option=("--cpu-weight",), metavar="N",
    )
    io_weight: int | None = row(
        Whole(1, MAX_WEIGHT), "Its share of the disks' time where that does not suffice for all, as with cpu_weight. Takes a"
        " disk whose scheduler goes by weights: bfq, or the kernel's io.cost.", usual="100",
        setting="io_weight", change=Effect.LIVE, option=("--io-weight",), metavar="N",
    )
    io: Mapping[str, IoLimit] = row(
        IoType(), "The most that it may read from disks and write to them, by disk: read and write in bytes a second,"
        " read_ops and write_ops in operations a second. A disk is named as sda; delta, or none, is the one with its delta.",
        default={}, change=Effect.LIVE, option=("--io",), metavar="[DISK=]read=50M,write=20M,read_ops=N,write_ops=N",
    )
    disk: int = row(
        Size(), "Disk space that it may take at most, such as 10G; 0: no limit. Takes project quotas; not for a privileged"
        " one.", default=0, setting="disk", change=Effect.LIVE, option=("--disk",), metavar="SIZE",
    )
    pids: int = row(
        Whole(0, MAX_PIDS), "Processes and threads that it may have at most; 0: no limit.", default=PIDS,
        setting="pids", change=Effect.LIVE, option=("--pids",), metavar="N",
    )
    volumes: tuple[VolumeMount, ...] = row(
        VolumesType(), "What it has beside its layers: volumes, which outlive it, directories of the host (read-only, unless"
        " :rw is said), and file systems in memory.", default=(),
        option=("-v", "--volume"), metavar="VOLUME:/PATH[:ro]|/HOST/PATH:/PATH[:rw]|tmpfs:/PATH:size=SIZE",
    )
    app: AppUse | None = row(
        AppType(), "The release of an app that it has, read-only: at /opt/NAME, unless another path is named.",
        option=("--app",), metavar="NAME@VERSION[:/PATH]",
    )
    generation: int = row(
        Whole(0, MAX_GENERATION), "The generation that it stands on, a frozen base, by its number; 0: the host's root, as"
        " it is at each start. `lxcfleet generation list` has the numbers, which are this host's own.", default=0, stays=True,
        option=("--generation",), metavar="N",
    )
    secrets: tuple[SecretUse, ...] = row(
        SecretsType(), "Secrets that it has as files in /run/secrets: by name, with what differs of the file's name, owner,"
        " mode, and what follows in it when the value changes.", default=(),
        option=("--secret",), metavar="NAME[:FILE][,uid=UID][,gid=GID][,mode=MODE][,on_change=…]",
    )
    no_new_privs: bool = row(
        Flag(), "Whether setuid and file capabilities give no rights in it (app containers only).", default=False,
        option=("--no-new-privs",), init=Init.APP,
        init_why="systemd's services use sudo and its like\nleave it out, or run a single command",
    )
    user: str | None = row(
        Text(check_user, pattern=r"^[a-zA-Z0-9_.-]+(:[a-zA-Z0-9_.-]+)?$"),
        "The user that its command runs as, as its own /etc/passwd has it at each start: NAME, UID, NAME:GROUP or UID:GID"
        " (app containers only).", usual="root", option=("--user",), metavar="USER",
        init=Init.APP, init_why="systemd's services have users of their own\nwrite it to a unit's User= inside",
    )
    stop_signal: StopSignal | None = row(
        Choice(StopSignal, prefix="SIG"), "The signal that asks its command to end, such as INT for PostgreSQL (app"
        " containers only).", usual="TERM", change=Effect.LIVE, option=("--stop-signal",), metavar="SIGNAL",
        init=Init.APP, init_why="systemd has a signal of its own\nwrite it to a unit's KillSignal= inside",
    )
    stop_timeout: float | None = row(
        Seconds(0, MAX_STOP_TIMEOUT), "Seconds until its stop becomes a kill.",
        setting="stop_timeout", taken_over=False, change=Effect.LIVE, option=("--stop-timeout",), metavar="TIME",
    )
    units: tuple[str, ...] = row(
        Items(parse_unit, check_units), "The host's services that it runs, by the names of their units, such as"
        " apache2.service (system containers only).", default=(), option=("--unit",), metavar="UNIT",
        init=Init.SYSTEM, init_why="it has no systemd\nleave out the command, or give the service's program as the command",
    )
    nesting: bool = row(
        Flag(), "Whether programs in it may make containers of their own, such as bubblewrap's: they get a /proc and a /sys"
        " that nothing covers. Not for a privileged one.", default=False, option=("--nesting",),
    )
    lxc: Mapping[str, str] = row(
        RawType(), "Keys of LXC's own configuration, with their values: lxc.prlimit.*, lxc.sysctl.*, lxc.cgroup.* (v1),"
        " lxc.cgroup2.* and lxc.environment.runtime, but for those that could take a wall away.", default={},
        option=("--lxc",), metavar="KEY=VALUE",
    )
    devices: tuple[str, ...] = row(
        Items(parse_device, check_devices), "The host's devices that it is given: tun, fuse, kvm, dri (the render nodes of"
        " graphics processors).", default=(), option=("--device",), metavar="tun|fuse|kvm|dri",
    )
    maintenance: bool = row(
        Flag(), "Whether it cleans up in itself by the host's timers: systemd-tmpfiles-clean, logrotate, phpsessionclean"
        " (system containers only).", default=True, option=("--maintenance/--no-maintenance",), usual="yes",
        init=Init.SYSTEM, init_why="it has no systemd\nleave it out",
    )
    autostart: bool = row(
        Flag(), "Whether it starts when the host boots, if it ran when the host went down.", default=True,
        usual="yes", change=Effect.LIVE, option=("--autostart/--no-autostart",),
    )
    boot_order: int = row(
        Whole(-MAX_ORDER, MAX_ORDER), "Those with lower numbers start before it when the host boots, and end after it at"
        " shutdown.", default=0, usual="0",
        change=Effect.LIVE, option=("--boot-order",), metavar="N",
    )
    depends_on: Mapping[str, str] = row(
        DependsType(), "The containers that it waits for before it starts: names of containers or groups, each with"
        " started, healthy or completed (its last run ended with 0).", default={},
        change=Effect.LIVE, option=("--depends-on",), metavar="NAME=CONDITION",
    )
    restart: Restart = row(
        RestartType(), "When it is started again after it ended by itself: no, on-failure, always or unless-stopped, and"
        " what differs of delay, factor, max_delay, reset_after, attempts, within and on_unhealthy.", default=Restart(),
        usual="no", change=Effect.LIVE, option=("--restart",), metavar="'POLICY [KEY=VALUE...]'",
    )
    hooks: Hooks = row(
        HOOKS, "Commands that run in it before and after it is frozen for a copy: pre_freeze, post_freeze, and the timeout of"
        " each.", default=NO_HOOKS,
        change=Effect.LIVE, option=("--hooks",), metavar="'pre_freeze=CMD post_freeze=CMD'",
    )
    snapshots: Schedule = row(
        SCHEDULE, "How often a snapshot of it is made by itself, and how many of these are kept: every, keep.",
        default=NO_SCHEDULE, change=Effect.LIVE, option=("--snapshots",), metavar="'every=SPAN keep=N'",
    )
    logs: Logs = row(
        LOGS, "Whether its lines go to the host's log, and how many: journal, rate, burst.", default=USUAL_LOGS,
        change=Effect.LIVE, option=("--logs",), metavar="'journal=no rate=N burst=N'",
    )
    fleet: str | None = row(
        Text(check_name), "The fleet that owns it, if `lxcfleet apply` made it or took it over.", create=False, profile=False,
        change=Effect.NEVER, why=_OWNED,
    )
    group: str | None = row(
        Text(check_name), "Its group in the file of that fleet.", create=False, profile=False, change=Effect.NEVER,
        why=_OWNED,
    )
    created: str = row(
        Text(), "When it was created, as an ISO 8601 time in UTC.", default="", create=False, profile=False,
        change=Effect.NEVER, why=_GIVEN,
    )  # fmt: skip


PRIVILEGED = Row(
    Flag(), "Whether root inside is root on the host. Only for programs that you trust.", key="privileged", default=False,
    stored=False, option=("--privileged",), change=Effect.NEVER, why=_MADE,
)  # fmt: skip
"""Requests and profiles have this key instead of ``first_id``, which lxcfleet assigns."""


@cache
def table() -> Mapping[str, Row]:
    """All rows by key."""
    rows: dict[str, Row] = {}
    for key, each in rows_of(SpecFields).items():
        rows[key] = each
        if key == "profile":
            rows[PRIVILEGED.key] = PRIVILEGED
    return rows


@cache
def stored() -> Mapping[str, Row]:
    """The rows whose keys stand in a container's file ``lxcfleet.yaml``."""
    return {key: each for key, each in table().items() if each.stored}


@cache
def askable(*, profile: bool = False) -> Mapping[str, Row]:
    """The rows whose keys a request may have, or with ``profile`` a profile."""
    return {key: each for key, each in table().items() if (each.profile if profile else each.create)}
