"""What the daemon tells of what there is, as JSON. Values only."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from lxcfleet.errors import ErrorBody


class ServerRecord(TypedDict):
    """The daemon."""

    version: str
    api: str
    pid: int
    containers: int
    """How many it knows."""


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
    restart_needed: list[str]
    """The keys of its spec that were changed and are in force only after a restart."""
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
    spec: dict[str, Any]
    """What was asked for: all fields, as they stand in its file. Empty if that can't be read."""


class HostUsageRecord(TypedDict):
    """The host's memory and swap, in bytes, and how many processors it has."""

    processors: int
    memory_total_bytes: int
    memory_available_bytes: int
    """What programs can have without swapping."""
    swap_total_bytes: int
    swap_free_bytes: int


class ContainerUsageRecord(TypedDict):
    """What one container has used. null: it does not run, the host does not count it, or it is on no bridge."""

    name: str
    state: str
    health: str | None
    run: str | None
    """Another one each time that it starts: its counters begin anew then."""
    cpu_seconds: float | None
    memory_bytes: int | None
    """What it has at the moment; so with the processes. All others count since it started."""
    processes: int | None
    io_read_bytes: int | None
    """From block devices; what the host has in its memory is not read again."""
    io_written_bytes: int | None
    net_received_bytes: int | None
    net_sent_bytes: int | None
    cpus_limit: float | None
    """In processors; null: no limit. So with those that follow."""
    memory_limit_bytes: int | None
    processes_limit: int | None


class UsageRecord(TypedDict):
    """What the containers have used at one moment. Two readings give a rate."""

    time: float
    """Seconds on a clock that never goes back; only the difference of two readings means something."""
    cost: float
    """Seconds of processor time that this reading took the daemon."""
    host: HostUsageRecord
    containers: list[ContainerUsageRecord]


class ResultRecord(TypedDict):
    """What became of one container; see spec.results.Result."""

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
    """A container of a rollout. ``phase``: see patch.rollout.state.MemberPhase."""

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
    exit_status: int | None
    """Of its process 1; None: it has not ended, or how is not known."""
    packages: dict[str, list[str]] | None
    """Those that changed on the host since the container was last well, with their versions then and now; an empty one:
    not installed; None: that is not known."""
    commands: list[str]
    """What puts the former versions back on the host."""


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
    killed: int
    """Containers that had to be killed, as they did not end in time."""
    wave: int
    patches: int
    waits_for: str
    """What it waits for at the moment, in words."""
    halted: HaltRecord | None
    policy: dict[str, Any]
    containers: list[RolloutMemberRecord]
    waves: list[list[str]]
    """Those to come, if all goes well."""


class SetRecord(TypedDict):
    """What became of ``set``."""

    changed: bool
    """Whether a spec was changed or a container is restarted, or with dry_run would be."""
    dry_run: bool
    results: list[ResultRecord]
    plan: list[str]
    """With dry_run: what would be done, in words."""
    restarts: list[str]
    """The containers that are restarted for it."""
    restart_needed: list[str]
    """Those that have what was asked for only after a restart, which was declined."""
    rollout: RolloutRecord | None
    """The rollout that restarts them."""


class TargetRecord(TypedDict):
    """An exporter, in the form that Prometheus' http_sd asks for."""

    targets: list[str]
    labels: dict[str, str]


class EventRecord(TypedDict):
    """Something that happened: ``what`` is a word such as started, stopped, created, destroyed, cleaned."""

    time: str
    what: str
    container: str | None
    message: str
