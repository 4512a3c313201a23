"""The launcher's operations, declared once: each with the types of its argument and its answers.

The launcher's client and its children both read this, and mypy checks both sides and all callers against it. Arguments and
answers are sent as JSON. An operation is its own name, so it is sent as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypedDict, TypeVar

from lxcfleet.errors import ErrorBody
from lxcfleet.launcher.data_items import Delivered, DeliverItem, Fetched, FetchItem, MountsItem, TidyItem, VolumeItem

A = TypeVar("A")
R = TypeVar("R")


class Operation(str, Generic[A, R]):
    """An operation. ``A``: the type of its argument; ``R``: the type of one answer."""


class Ask(Operation[A, R], Generic[A, R]):
    """An operation with one answer."""


class Each(Operation[A, R], Generic[A, R]):
    """An operation on many containers, with an answer for each as soon as it is done."""


class Large(Operation[A, R], Generic[A, R]):
    """An operation with one answer that may be too large for a datagram, and so comes in a memory file."""


class Talk(Operation[A, R], Generic[A, R]):
    """An operation whose argument comes piece by piece, while answers go back."""


# -- arguments and answers ----------------------------------------------------------------------------------


class Done(TypedDict):
    """The outcome: done, or an error."""

    name: str
    """The container's name; for an operation without a container, its own."""
    error: ErrorBody | None
    notes: list[str]
    """Notes for the operator."""


class PrepareItem(TypedDict):
    """A container to prepare."""

    name: str
    stack: Any
    """The container's layers; see base.stack.Stack.to_json."""
    first_id: int | None
    """The first id of its range; None: the container is privileged."""
    disk: int
    """The most bytes that its delta may have; 0: no limit."""
    app: bool
    """Whether its /run is made for it, as it has no systemd that would."""
    language: bool
    """Whether its command has the language that its files ask for."""
    make: bool
    """Whether its files are made; otherwise they are checked."""
    generation: int
    """The base that it stands on; 0: the host's root."""
    mount: bool
    """Whether its layers are mounted: then the mount namespace comes with the answer, as a descriptor."""
    reconcile: bool
    """Whether the host's changes are merged into its delta."""
    files: dict[str, str]
    """Files for its directory: name to text."""
    volumes: list[str]
    """What it mounts beside its layers, as texts; see spec.volumes."""
    secrets: Any
    """Its secrets, whose values are there; see data.secrets.Item."""
    devices: list[str]
    """The host's devices that it is given, by name; see spec.devices."""


class MaskItem(TypedDict):
    """A mask to bring up to date and to mount."""

    generation: int
    """Of which base; 0: the host's root."""
    force: bool
    """Whether to look through the whole base, even if the record says that the mask is current."""


class FreezeItem(TypedDict):
    """A freeze of the host's root."""

    why: str
    waiting: bool
    """Whether an apt that holds its lock waits for it."""


class CheckedGeneration(TypedDict):
    """What a look at a generation's files found."""

    number: int
    files: int
    written: list[str]
    missing: list[str]
    strange: list[str]


class InitPid(TypedDict):
    """Process 1 of a container, as the host numbers it; None: the container does not run."""

    name: str
    pid: int | None


class KeeperItem(TypedDict):
    """A container to keep in the foreground; the client's connection, the daemon's and the standard streams come along."""

    name: str
    system: bool
    """Whether systemd runs in it."""
    stdin: bool
    """Whether its command gets the client's stdin."""
    tty: bool
    """Whether its command has a terminal."""
    detach: bool
    """Whether it runs on without its client."""
    stop_signal: int
    """What ends it if its client is gone."""
    stop_timeout: float
    """Seconds from that signal to a kill."""
    pipes: str
    """The directory of its pipes."""
    left: str
    """The file that says that its client is gone, and that it is being stopped."""
    pending: str
    """The file that is there as long as its start is owed."""
    note: str
    """The file that tells whether a restart is wanted; see containers.foreground."""
    log: str
    """The log of its console."""
    log_bytes: int
    """As many bytes may be in that."""


class LimitItem(TypedDict):
    """Limits for a running container."""

    name: str
    pid: int
    limits: list[tuple[str, str, str]]
    """Controller, file and value of its cgroups."""
    disk: int | None
    """The most bytes that its delta may have, 0: no limit; None: unchanged."""
    memory: int | None
    """If the container uses more memory than this already, nothing is set; None: that is not checked."""


class CheckItem(TypedDict):
    """A command to run in a container."""

    name: str
    command: list[str]
    environment: dict[str, str]
    timeout: float
    """Seconds."""


class Checked(TypedDict):
    """The outcome of such a command."""

    name: str
    error: ErrorBody | None
    status: int | None
    """The exit status; None: the command took too long."""
    output: str


class ScanItem(TypedDict):
    """A running container to look at; see patch.stale.scan.Target."""

    name: str
    pid: int
    cgroup: str
    stack: Any
    since: float
    """The time of its start, in seconds since the epoch."""
    monitor: int | None
    """The process id of its monitor."""
    client: int | None
    """The process id of its DHCP client, if it has one."""


class StaleItem(TypedDict):
    """Containers to look at, and the files to look for."""

    wanted: Any
    """The files to look for among those that containers are served; see patch.stale.served.Wanted.to_json. None: none."""
    targets: list[ScanItem]


class UnshadowItem(TypedDict):
    """Files to remove from a delta, which is given by its directory."""

    name: str
    delta: str
    paths: list[str]
    records: dict[str, str]
    """Records of packages that its dpkg gets in place of its own, by NAME:ARCHITECTURE; see base.merge.records.packages."""


class ExposureItem(TypedDict):
    """A running container to look at from inside."""

    name: str
    pid: int
    stack: Any


class ExposedFile(TypedDict):
    """A file that a container can read and should not; ``rule``: the mask's rule that would hide it."""

    path: str
    why: str
    rule: str


class Exposed(TypedDict):
    """The files that one container can read and should not."""

    name: str
    exposed: list[ExposedFile]
    problem: str | None


class UsageItem(TypedDict):
    """Directories to add up: names and directories."""

    targets: list[tuple[str, str]]
    depth: int
    """Paths down to so many levels are told."""
    top: int
    """At most so many paths of each."""
    seconds: float
    """For each directory."""


class UsedPath(TypedDict):
    """A directory with all below it, or a file."""

    path: str
    disk_bytes: int
    apparent_bytes: int
    items: int


class Used(TypedDict):
    """What a directory takes on the disk."""

    name: str
    whole: UsedPath
    paths: list[UsedPath]
    cut: bool
    """Whether not all was looked at."""


class DiffItem(TypedDict):
    """A container whose delta is compared with the layers below it."""

    name: str
    stack: Any
    first_id: int | None
    path: str
    """Only this path; empty: everywhere."""
    most: int
    """At most so many changes are listed."""
    seconds: float


class Differing(TypedDict):
    """What a container changed."""

    changes: list[dict[str, Any]]
    """As base.changes.Changed.to_json writes them."""
    counts: dict[str, int]
    items: int
    cut: bool


RoutesItem = TypedDict("RoutesItem", {"except": str})
"""The interface whose networks are left out."""


class Routes(TypedDict):
    """The networks that the host uses, and whether it has IPv6."""

    networks: list[str]
    ipv6: bool
    error: ErrorBody | None


class BridgeItem(TypedDict):
    """A bridge of the operator's."""

    bridge: str


class BridgeAddress(TypedDict):
    """The host's IPv4 address on the bridge."""

    address: str | None
    error: ErrorBody | None


class JoinItem(TypedDict):
    """Containers on a bridge of the operator's, and the rules for it."""

    bridge: str
    ports: Sequence[str]
    rules: str
    """The rules, for nft."""
    forward: bool
    """Whether the host is to forward packets."""


class NetworkItem(JoinItem):
    """The fleet's own bridge."""

    hardware: str
    further: dict[str, list[str]]
    """The ports of further bridges, which hang on it by a cable each."""
    addresses: list[str]
    """The host's addresses, with the length of the prefix."""
    localhost: bool
    """Whether published ports are reachable on 127.0.0.1, too."""
    domain: str
    """The domain for which the name server on the bridge is asked; empty: none."""


class DhcpItem(TypedDict):
    """A container that is to have a DHCP client."""

    name: str
    pid: int
    began: float
    daemon: int
    privileged: bool


class LeasedItem(TypedDict):
    """The table that has the set of given addresses."""

    table: str


class ForeignPort(TypedDict):
    """A port of the host that another fleet publishes."""

    table: str
    """The fleet's table."""
    protocol: str
    port: int
    address: str | None
    """The host's address that it is published at; None: all of them."""


class DatagramPort(TypedDict):
    """A UDP port of the host, and where it leads."""

    address: str | None
    """The host's address that it is published at; None: all of them."""
    port: int
    to: int
    """The containers' port."""
    members: list[str]
    """The addresses of the containers behind it."""


class PublishItem(TypedDict):
    """The ports of the host and where they lead."""

    bridge: str
    rules: str
    localhost: bool
    forward: bool
    datagrams: list[DatagramPort]
    """The ports whose flows are to be forgotten unless they lead to a member."""


class RulesItem(TypedDict):
    """Rules for nft."""

    rules: str


class LookupItem(TypedDict):
    """A running container from whose network a name server is asked."""

    pid: int
    began: float
    server: str
    """Its IPv4 address."""
    question: str
    """The name to ask for."""
    seconds: float


class LookedUp(TypedDict):
    """Whether there was an answer; None: the container has ended."""

    answered: bool | None
    error: ErrorBody | None


class DisconnectItem(TypedDict):
    """A bridge to remove, empty for none, and the rules that take its tables away."""

    bridge: str
    rules: str


# -- the operations -----------------------------------------------------------------------------------------

PREPARE: Talk[list[PrepareItem], Done] = Talk("prepare")
REMOVE: Each[list[str], Done] = Each("remove")
"""Takes names of directories."""
INSPECT: Each[list[str], InitPid] = Each("inspect")
FREEZE: Ask[list[str], Done] = Ask("freeze")
UNFREEZE: Ask[list[str], Done] = Ask("unfreeze")
LIMIT: Each[list[LimitItem], Done] = Each("limit")
"""Answers in the order of the items."""
CHECK_KEYS: Ask[list[tuple[str, str]], Done] = Ask("check_keys")
"""Takes keys of LXC's configuration with their values: whether liblxc takes all of them."""
CHECK: Ask[CheckItem, Checked] = Ask("check")
FEATURES: Ask[None, Mapping[str, Any]] = Ask("features")
"""Answers the host's features, as host.facts.features.Features.to_json writes them."""
ROOT_IDS: Ask[list[int], Done] = Ask("root_ids")
"""Takes the first and the last of the ids that root gets in /etc/subuid and /etc/subgid."""
ATTACH: Operation[Any, None] = Operation("attach")
"""Takes an AttachRequest of the API; the answers go to the client."""
FOREGROUND: Operation[Any, None] = Operation("foreground")
"""Takes a KeeperItem; the answers go to the client, as ForegroundRequest of the API has them."""

STALE: Large[StaleItem, list[dict[str, Any]]] = Large("stale")
"""Answers patch.stale.judge.StaleScan.to_json for each container."""
SHADOWS: Large[list[tuple[str, Any]], list[dict[str, Any]]] = Large("shadows")
"""Takes names and stacks; answers patch.shadow.files.Delta.to_json for each container."""
FREEZE_BASE: Large[FreezeItem, int] = Large("freeze_base")
"""Answers the number of the new generation, or minus the number of the newest one if that is the same."""
CHECK_GENERATION: Large[int, CheckedGeneration] = Large("check_generation")
REMOVE_GENERATION: Ask[int, Done] = Ask("remove_generation")
TIDY_GENERATIONS: Ask[None, Done] = Ask("tidy_generations")
"""Removes what is half made or half removed; the notes name it."""
MAKE_VOLUME: Ask[VolumeItem, Done] = Ask("make_volume")
CHANGE_VOLUME: Ask[VolumeItem, Done] = Ask("change_volume")
REMOVE_VOLUME: Ask[str, Done] = Ask("remove_volume")
"""Takes the name of a directory among the volumes."""
CHECK_MOUNTS: Ask[MountsItem, Done] = Ask("check_mounts")
"""The notes tell which packages' files would be hidden."""
FETCH_SECRET: Ask[FetchItem, Fetched] = Ask("fetch_secret")
DELIVER_SECRETS: Large[list[DeliverItem], list[Delivered]] = Large("deliver_secrets")
TIDY_SECRETS: Ask[TidyItem, Done] = Ask("tidy_secrets")
UNSHADOW: Ask[UnshadowItem, Done] = Ask("unshadow")
EXPOSURE: Large[list[ExposureItem], list[Exposed]] = Large("exposure")
USED: Large[UsageItem, list[Used]] = Large("used")
DIFF: Large[DiffItem, Differing] = Large("diff")
MASK: Ask[MaskItem, Done] = Ask("mask")
UNMASK: Ask[int, Done] = Ask("unmask")
"""Takes the number of the generation whose mask is unmounted and removed."""
RELEASE: Ask[None, Done] = Ask("release")

ROUTES: Ask[RoutesItem, Routes] = Ask("routes")
BRIDGE: Ask[BridgeItem, BridgeAddress] = Ask("bridge")
NETWORK: Ask[NetworkItem, Done] = Ask("network")
JOIN: Ask[JoinItem, Done] = Ask("join")
DHCP: Ask[list[DhcpItem], Done] = Ask("dhcp")
LEASED: Large[LeasedItem, list[tuple[str, int]]] = Large("leased")
"""Answers ports and the addresses, as numbers, that were given behind these ports."""
PUBLISHED: Large[str, list[ForeignPort]] = Large("published")
"""Takes the fleet's own table; answers what other fleets publish."""
PUBLISH: Ask[PublishItem, Done] = Ask("publish")
RULES: Ask[RulesItem, Done] = Ask("rules")
LOOKUP: Ask[LookupItem, LookedUp] = Ask("lookup")
DISCONNECT: Ask[DisconnectItem, Done] = Ask("disconnect")

ALL: tuple[Operation[Any, Any], ...] = tuple(each for each in [*globals().values()] if isinstance(each, Operation))
