"""What travels between the client and the daemon: requests, and records of what there is. Values only.

Requests are checked when they are read: everything that is wrong with one is told at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NotRequired, TypedDict

from lxcfleet import checks, policy
from lxcfleet.checks import HealthCheck
from lxcfleet.errors import ErrorBody, InvalidInput
from lxcfleet.model import MAX_CPUS, MAX_ORDER, MAX_PIDS, Action, Init, Network, Selection
from lxcfleet.names import MAX_COUNT, MAX_DRAIN, check_label, check_name, check_variable
from lxcfleet.net.ports import Port, Publication, check_ports, check_publications, parse_port, parse_publication
from lxcfleet.schema import Fields


class ContainerRecord(TypedDict):
    """A container as ``list`` shows it."""

    name: str
    state: str
    health: str | None
    """starting, healthy or unhealthy, of one that runs."""
    init: str
    command: list[str]
    labels: dict[str, str]
    profile: str | None
    privileged: bool
    network: str
    ports: list[str]
    """What it listens on, as ``http=8080/tcp``."""
    isolated: bool
    publish: list[str]
    """The host's ports that lead to it, as ``8080:80/tcp``."""
    created: str
    pid: int | None
    """Process 1, as the host numbers it."""
    addresses: list[str]
    busy: str | None
    """What is being done to it."""
    problem: str | None
    """Why it is broken."""


class ContainerDetails(ContainerRecord):
    """A container as ``info`` shows it."""

    directory: str
    delta_bytes: int
    """What its delta takes on disk."""
    first_id: int | None
    hardware: str | None
    """Its MAC address on the bridge; None: it is on none."""
    memory_bytes: int | None
    cpu_seconds: float | None
    processes: int | None
    environment: dict[str, str]
    autostart: bool
    boot_order: int
    started: str | None
    check: dict[str, Any] | None
    """How its health is told, as in its spec."""
    health_reason: str
    """Why it is not healthy, where a check said so."""
    memory_limit_bytes: int | None
    cpus_limit: float | None
    disk_limit_bytes: int | None
    processes_limit: int | None
    """What it may use at most; None: no limit."""
    conflicts: list[str]
    """What its last start could not merge with the host's changes; see docs/packages.md."""
    confinement: dict[str, str]
    """What holds it in, in words."""


class ResultRecord(TypedDict):
    """What became of one container; see model.Result."""

    name: str
    status: str
    changed: bool
    error: ErrorBody | None
    differs: NotRequired[dict[str, tuple[str, str]]]
    """Only of one that ``create --ensure`` found to be otherwise than asked for, which it stays."""


class OperationRecord(TypedDict):
    """Long work. ``status``: running, done or cancelled."""

    id: str
    action: str
    status: str
    created: str
    total: int
    done: int
    changed: bool
    results: list[ResultRecord]
    plan: list[str]
    """With dry_run: what would be done, one line each; nothing was done then. ``changed`` and the results (with the
    status planned, unchanged or failed) tell what would become of the containers."""


class FindingRecord(TypedDict):
    """One line of ``doctor``. ``level``: ok, warning or fail."""

    check: str
    level: str
    message: str
    have: int | None
    need: int | None
    hint: str
    fixable: bool


class DoctorRecord(TypedDict):
    """The answer of ``doctor``: findings, and how many more containers fit (None: no limit met)."""

    findings: list[FindingRecord]
    fits: int | None


class RolloutMemberRecord(TypedDict):
    """A container of a rollout. ``phase``: see patch.state.Phase."""

    name: str
    phase: str
    wave: int | None
    stale: bool
    """It runs old code still, though all was done that may be."""
    note: str


class HaltRecord(TypedDict):
    """Why a rollout stopped, and the end of what the container printed."""

    container: str | None
    why: str
    log: str


class RolloutRecord(TypedDict):
    """A rollout. ``kind``: patch or restart; ``status``: running, paused, halted, aborted or done."""

    id: str
    kind: str
    status: str
    created: str
    ended: str | None
    changed: bool
    """Whether a container was restarted, or with dry_run would be."""
    total: int
    done: int
    """Containers about which nothing is left to do."""
    wave: int
    patches: int
    waits_for: str
    """What it waits for at the moment, in words."""
    halted: HaltRecord | None
    policy: dict[str, Any]
    containers: list[RolloutMemberRecord]
    waves: list[list[str]]
    """Those to come, if all goes well."""


class EventRecord(TypedDict):
    """Something that happened: ``what`` is a word such as started, stopped, created, destroyed, cleaned."""

    time: str
    what: str
    container: str | None
    message: str


@dataclass(frozen=True)
class CreateRequest:
    """``lxcfleet create``. Without a name PREFIX is ``c``; without a count the name is taken as it is."""

    name: str | None = None
    count: int | None = None
    ensure: bool = False
    init: Init | None = None
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    profile: str | None = None
    privileged: bool = False
    network: Network | None = None
    """None: as the profile or the settings say."""
    ports: tuple[Port, ...] = ()
    publish: tuple[Publication, ...] = ()
    isolated: bool = False
    drain: float | None = None
    """Seconds; None: as the profile or the settings say."""
    health: HealthCheck | None = None
    """None: as the profile says."""
    memory: int | None = None
    """Bytes, 0: no limit; None, here and below: as the profile or the settings say."""
    cpus: float | None = None
    disk: int | None = None
    """Bytes, 0: no limit."""
    pids: int | None = None
    no_new_privs: bool = False
    autostart: bool | None = None
    """None: as the profile says."""
    boot_order: int | None = None
    start: bool = True
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        health = None if self.health is None else self.health.to_json()
        texts = {"ports": [str(port) for port in self.ports], "publish": [str(each) for each in self.publish]}
        return {**asdict(self), "command": list(self.command), "health": health, **texts}

    @classmethod
    def from_json(cls, data: object) -> CreateRequest:
        """From a body; raises InvalidInput with everything that is wrong with it."""
        fields = Fields(data, "request")
        request = cls(
            name=fields.optional_text("name"),
            count=fields.integer("count", 1, 1, MAX_COUNT) if fields.has("count") else None,
            ensure=fields.flag("ensure"),
            init=fields.choice("init", Init, Init.SYSTEM) if fields.has("init") else None,
            command=fields.texts("command"),
            environment=fields.pairs("environment", check_variable),
            labels=fields.pairs("labels", check_label),
            profile=fields.optional_text("profile"),
            privileged=fields.flag("privileged"),
            network=fields.choice("network", Network, Network.BRIDGE) if fields.has("network") else None,
            ports=fields.parsed("ports", parse_port, check_ports),
            publish=fields.parsed("publish", parse_publication, check_publications),
            isolated=fields.flag("isolated"),
            drain=fields.number("drain", 0, 0, MAX_DRAIN) if fields.has("drain") else None,
            health=checks.read(fields),
            memory=fields.size("memory", 0) if fields.has("memory") else None,
            cpus=fields.number("cpus", 0, 0, MAX_CPUS) if fields.has("cpus") else None,
            disk=fields.size("disk", 0) if fields.has("disk") else None,
            pids=fields.integer("pids", 0, 0, MAX_PIDS) if fields.has("pids") else None,
            no_new_privs=fields.flag("no_new_privs"),
            autostart=fields.flag("autostart") if fields.has("autostart") else None,
            boot_order=fields.integer("boot_order", 0, -MAX_ORDER, MAX_ORDER) if fields.has("boot_order") else None,
            start=fields.flag("start", True),
            dry_run=fields.flag("dry_run"),
        )
        if request.name is not None:
            try:
                check_name(request.name)
            except InvalidInput as error:
                fields.complain("name", f"{error.message}: {error.why}")
        fields.finish("the request to create containers is not valid")
        return request


@dataclass(frozen=True)
class ActionRequest:
    """``lxcfleet start|stop|…``. ``force``: destroy what runs. ``until_boot``: stop what is to start at the next boot."""

    action: Action
    selection: Selection
    timeout: float | None = None
    """Seconds until a stop becomes a kill; None: as the settings say."""
    drain: float | None = None
    """Seconds from leaving names and ports to the stop; None: as each spec says."""
    force: bool = False
    until_boot: bool = False
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "selection": selection_to_json(self.selection)}

    @classmethod
    def from_json(cls, data: object) -> ActionRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            action=fields.choice("action", Action, Action.START),
            selection=read_selection(fields.nested("selection")),
            timeout=fields.number("timeout", 0, 0, 86400) if fields.has("timeout") else None,
            drain=fields.number("drain", 0, 0, MAX_DRAIN) if fields.has("drain") else None,
            force=fields.flag("force"),
            until_boot=fields.flag("until_boot"),
            dry_run=fields.flag("dry_run"),
        )
        if request.until_boot and request.action is not Action.STOP:
            fields.complain("until_boot", "goes with stop alone")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class RolloutRequest:
    """``lxcfleet patch apply``, and ``restart --rolling``. ``policy``: what it says other than the settings."""

    kind: str
    selection: Selection
    policy: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "selection": selection_to_json(self.selection)}

    @classmethod
    def from_json(cls, data: object) -> RolloutRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            kind=fields.text("kind", "patch"),
            selection=read_selection(fields.nested("selection")),
            policy=_policy(fields),
            dry_run=fields.flag("dry_run"),
        )
        if request.kind not in ("patch", "restart"):
            fields.complain("kind", "is none of patch, restart")
        fields.finish("the request is not valid")
        return request


def _policy(fields: Fields) -> dict[str, Any]:
    inner = fields.nested("policy")
    said = inner.keys()
    settings = policy.read(inner, policy.RolloutSettings()).to_json()
    return {key: settings[key] for key in said if key in settings}


@dataclass(frozen=True)
class WaitRequest:
    """``lxcfleet wait``. ``until``: running, stopped or healthy."""

    selection: Selection
    until: str = "running"
    timeout: float = 60.0

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"selection": selection_to_json(self.selection), "until": self.until, "timeout": self.timeout}

    @classmethod
    def from_json(cls, data: object) -> WaitRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(
            selection=read_selection(fields.nested("selection")),
            until=fields.text("until", "running"),
            timeout=fields.number("timeout", 60.0, 0, 86400),
        )
        if request.until not in ("running", "stopped", "healthy"):
            fields.complain("until", "is none of running, stopped, healthy")
        fields.finish("the request is not valid")
        return request


def selection_to_json(selection: Selection) -> dict[str, Any]:
    """A selection as it stands in a body."""
    return {
        "patterns": list(selection.patterns),
        "labels": dict(selection.labels),
        "everything": selection.everything,
    }


def read_selection(inner: Fields) -> Selection:
    """The selection that ``selection_to_json`` gave; complaints go to the fields."""
    selection = Selection(
        patterns=inner.texts("patterns"),
        labels=tuple(inner.pairs("labels", check_label).items()),
        everything=inner.flag("everything"),
    )
    inner.close()
    return selection


class AttachRequest(TypedDict):
    """The first message on the attach socket; stdin, stdout and stderr travel with it as descriptors.

    The socket is of type SOCK_SEQPACKET, each message one JSON object. With ``tty`` the answer
    ``{"terminal": true}`` carries the master side of a terminal inside the container. The client may send
    ``{"signal": N}``; at the end comes ``{"exit": status}`` or ``{"error": ErrorBody}``.
    If the client goes away the command gets SIGHUP.
    """

    name: str
    command: list[str]
    """Empty: a login shell of root's."""
    environment: dict[str, str]
    tty: bool
