"""The records that the daemon answers with, as JSON: containers, operations, rollouts and more. Values only."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from lxcfleet.errors import ErrorBody


class ServerRecord(TypedDict):
    """The daemon."""

    version: str
    api: str
    pid: int
    containers: int
    """How many containers the daemon knows."""


class ExitRecord(TypedDict):
    """How a run of a container ended."""

    status: int | None
    """As a shell shows it: 128 and the signal's number if a signal ended process 1. Null: not known."""
    words: str
    """The same in words."""
    out_of_memory: bool
    """The kernel killed a process of it because memory ran out, and with that it ended."""
    asked: bool
    """Somebody wanted it to end."""
    at: str
    """When that was noticed."""
    ago: float
    """The seconds since then."""
    seconds: float | None
    """How long the run took; null: not known."""


class ContainerRecord(TypedDict):
    """A container as ``list`` shows it."""

    name: str
    state: str
    health: str | None
    """starting, healthy or unhealthy; null: the container does not run."""
    init: str
    command: list[str]
    labels: dict[str, str]
    profile: str | None
    privileged: bool
    network: str
    ports: list[str]
    """The ports that the container declares, as ``http=8080/tcp``."""
    volumes: list[str]
    """The mounts that it has beside its layers, each as VOLUME:/PATH, /HOST/PATH:/PATH:ro or tmpfs:/PATH:size=BYTES."""
    app: str | None
    """The release of an app that it has, as NAME@VERSION[:/PATH]."""
    secrets: list[str]
    """Its secrets, each as NAME[:FILE][,OPTION…]: references, never values."""
    isolated: bool
    publish: list[str]
    """The host's ports that lead to the container, as ``8080:80/tcp``."""
    created: str
    pid: int | None
    """The number that its process 1 has on the host."""
    addresses: list[str]
    busy: str | None
    """The action that is under way on the container; null: none."""
    restart_needed: list[str]
    """The changed keys of its spec that take effect only after a restart."""
    problem: str | None
    """Why the container is broken."""
    exit: ExitRecord | None
    """How its last run ended; null: none has, or nothing is known of it."""
    blocked: str | None
    """In state blocked: what has to be there before it starts, such as ``db1 not healthy``."""
    gave_up: bool
    """It failed too often, and is started no more by itself: it is down until somebody starts it, or the host boots. If its
    start is owed to it, the next start of lxcfleetd tries it, too."""
    start_error: str | None
    """Why its last start failed, while that is tried again or was given up; null: it did not fail."""
    starts_in: float | None
    """In state backoff: the seconds until it is started again."""
    foreground: bool
    """`lxcfleet run` runs it, or did so last: whoever called that starts it, and neither a boot nor a policy does."""


class ContainerDetails(ContainerRecord):
    """A container as ``info`` shows it."""

    directory: str
    delta_bytes: int | None
    """The space that its delta takes on disk; null: it has more files than are looked at in 5 s, or others are looked at."""
    first_id: int | None
    hardware: str | None
    """Its MAC address on the bridge; null: the container is on no bridge."""
    memory_bytes: int | None
    memory_kills: int
    """How many processes of it the kernel killed for memory since the daemon started."""
    last_memory_kill: str
    """The last ones in words; empty: there were none."""
    cpu_seconds: float | None
    throttled_seconds: float | None
    """Seconds for which its limit kept it from processors; null: not counted."""
    pressure: dict[str, float]
    """Seconds in which some of its processes waited for cpu, memory or io; only with cgroup v2."""
    processes: int | None
    environment: dict[str, str]
    autostart: bool
    boot_order: int
    started: str | None
    check: dict[str, Any] | None
    """Its health check, as in its spec."""
    health_reason: str
    """Why the container is not healthy, in the words of its check."""
    memory_limit_bytes: int | None
    cpus_limit: float | None
    disk_limit_bytes: int | None
    processes_limit: int | None
    """The most processes that the container may have; null: no limit. So with the other limits."""
    exit_lines: list[str]
    """The last lines that its console had when its last run ended."""
    failures: int
    """The failures in a row that its restart policy counts, or of its start; 0 while it runs without a restart policy."""
    conflicts: list[str]
    """The changes of the host that its last start could not merge with the container's own; see docs/packages.md."""
    confinement: dict[str, str]
    """The means that confine the container, such as seccomp, each with its effect in words."""
    spec: dict[str, Any]
    """All fields of its spec, as they stand in the spec's file. Empty if that file can't be read."""


class SecretRecord(TypedDict):
    """A secret: where its value comes from, and who has it. The value is in no record."""

    name: str
    """NAME if the settings of the host declare it, FLEET/NAME if a fleet's file does."""
    fleet: str | None
    source: str
    """In words; of a command its program alone."""
    refresh_seconds: float | None
    """The seconds after which its source is asked again by itself; null: it is not."""
    containers: list[str]
    """The containers that have it, or have it from their next start on."""
    fetched: str | None
    """When its source was asked last; null: not since the daemon started."""
    changed: str | None
    """When it got another value; null: not since the daemon started."""
    problem: str | None
    """Why its value could not be fetched last; the former one holds."""


class VolumeRecord(TypedDict):
    """A volume, which outlives the containers that mount it."""

    name: str
    size_bytes: int | None
    """The most bytes that may be on it; null: no limit."""
    used_bytes: int | None
    """Null: they are not counted. Only the call about one volume counts them itself, for at most 5 s."""
    containers: list[str]
    """The containers whose specs name it."""
    labels: dict[str, str]
    first_id: int | None
    """The first of the uids and gids that its files have on the host's disk; null: its record can't be read."""
    created: str
    path: str
    """Its files on this host."""
    problem: str | None
    """Why it is broken."""


class HostUsageRecord(TypedDict):
    """The host's memory and swap, in bytes, and how many processors it has."""

    processors: int
    memory_total_bytes: int
    memory_available_bytes: int
    """Memory that programs can get without swapping."""
    swap_total_bytes: int
    swap_free_bytes: int


class ContainerUsageRecord(TypedDict):
    """The resources that one container has used. A value is null if the container does not run, if the host does not count
    this resource, or, for the network, if the container is on no bridge."""

    name: str
    state: str
    health: str | None
    run: str | None
    """An id of the container's current run: each start gives a new id, and the counters begin anew."""
    cpu_seconds: float | None
    memory_bytes: int | None
    """At the moment, as are the processes. All other values count since the container started."""
    processes: int | None
    io_read_bytes: int | None
    """Read from block devices. Reads that the host's page cache served do not count."""
    io_written_bytes: int | None
    net_received_bytes: int | None
    net_sent_bytes: int | None
    throttled_seconds: float | None
    """For so long its limit kept it from processors that it wanted."""
    pressure: dict[str, float]
    """For how many seconds some of its processes waited for cpu, memory or io, by that word; empty: the host does not count
    that, as with cgroup v1."""
    cpus_limit: float | None
    """In processors; null: no limit, also in the two limits that follow."""
    memory_limit_bytes: int | None
    processes_limit: int | None


class UsageRecord(TypedDict):
    """The resources that the containers have used up to one moment. Two such readings give a rate."""

    time: float
    """Seconds on a clock that never goes back; only the difference of two readings means something."""
    cost: float
    """Seconds of processor time that this reading took the daemon."""
    host: HostUsageRecord
    containers: list[ContainerUsageRecord]


class ResultRecord(TypedDict):
    """The outcome of an operation for one container; see spec.results.Result."""

    name: str
    status: str
    changed: bool
    error: ErrorBody | None
    differs: NotRequired[dict[str, tuple[str, str]]]
    """The fields in which an existing container differs from the request, or did before it was changed: for each key the
    former value and the value asked for. Only ``set`` and ``create --ensure`` give it."""
    exit_status: NotRequired[int | None]
    """For ``wait`` until a container is stopped: how its last run ended; null: that is not known."""
    removed: NotRequired[list[str]]
    """The paths that were removed from its delta, or would be. Only ``audit shadow`` gives it."""
    kept: NotRequired[dict[str, str]]
    """The paths that were asked for and stay, with the reason for each. Only ``audit shadow`` gives it."""
    notes: NotRequired[list[str]]
    """The facts that the operator should know though it succeeded, such as a mount that hides files of packages."""


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
    """With dry_run: the steps that would be done, one line each; nothing was done. ``changed`` and the results (with the
    status planned, unchanged or failed) then tell how the containers would end up."""


class CreationRecord(OperationRecord):
    """The operation of ``create``."""

    notes: list[str]
    """The obstacles that may keep the requested containers from their work, one line each."""
    rollout: str | None
    """With update: the id of the rollout that changes containers in waves, and restarts those that it takes; null: there is
    none."""


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
    """The answer of ``doctor``: findings, and how many more containers fit (null: no limit was found)."""

    findings: list[FindingRecord]
    fits: int | None


class TrialRecord(TypedDict):
    """A test of a container. ``verdict``: good, bad, not known, or null: it was not run yet."""

    name: str
    verdict: str | None
    reason: str
    """The last line that it printed, and what went wrong."""
    required: bool
    passed: int
    """How often it was good in a row."""
    passes: int
    """How often it has to be."""


class RolloutMemberRecord(TypedDict):
    """A container of a rollout. ``phase``: see patch.rollout.state.MemberPhase."""

    name: str
    phase: str
    wave: int | None
    """Null: it has not begun; 0: it got its spec in no wave, as it did not run, or as an undo gave it back at once."""
    live: bool
    """Whether it gets another spec without a restart."""
    stale: bool
    """Whether the container was found stale after the rollout had done all that it may do to it."""
    note: str
    tests: list[TrialRecord]
    """Its tests since its restart."""
    failing_before: dict[str, str]
    """The tests that were not good before its restart, with the reason: they don't count."""


class HaltRecord(TypedDict):
    """Why a rollout halted, and the end of the container's console output."""

    container: str | None
    why: str
    log: str
    exit_status: int | None
    """The exit status of the container's process 1, 128 and the signal's number if a signal ended it; null: it has not ended,
    or its status is not known."""
    ended: str
    """How process 1 ended, in words: exit status, signal, and whether memory had run out; or that it has not ended, or that
    its status is not known. Empty: the halt is about no container."""
    packages: dict[str, list[str]] | None
    """The host's packages that changed since the container was last healthy, each with its version then and now (empty:
    not installed); null: not known."""
    commands: list[str]
    """Commands that put the former versions back on the host."""


class RolloutRecord(TypedDict):
    """A rollout. ``kind``: patch, restart, change (each container gets another spec in its turn) or secret (each is told in
    its turn, by a signal or a command, that its secrets have other values).

    ``status``: running, paused, halted, aborted or done.
    """

    id: str
    kind: str
    status: str
    created: str
    ended: str | None
    changed: bool
    """Whether a container was restarted or changed, or with dry_run would be."""
    total: int
    done: int
    """How many containers are through: nothing is left to do about them."""
    killed: int
    """How many containers had to be killed, as they did not end in time."""
    wave: int
    patches: int
    about: str
    """The releases of apps that it changes, such as ``shop@1.4 -> shop@1.5``; empty: none."""
    undoes: str
    """The id of the rollout whose changes of specs this one takes back; empty: it takes none back."""
    left_out: dict[str, ErrorBody]
    """The containers that keep the spec which it replaces, by name, with the error: they could not be restarted, or it can't
    be told whether they have what the rollout gave them that this one takes back."""
    not_reverted: str
    """Why a halt did not have its changes taken back, where that was to be done by itself (auto_revert); empty: it has, or
    that was not asked for."""
    waits_for: str
    """The condition that the rollout waits for at the moment, in words."""
    rejected: str
    """Why the patch was rejected that this rollout brought, or that it takes back; empty: it was not."""
    halted: HaltRecord | None
    policy: dict[str, Any]
    containers: list[RolloutMemberRecord]
    waves: list[list[str]]
    """The waves to come, if all goes well."""


class SetRecord(TypedDict):
    """The outcome of ``set``."""

    changed: bool
    """Whether a spec was changed or a container is restarted; with dry_run: whether one would be."""
    dry_run: bool
    results: list[ResultRecord]
    """The status ``begun``: it gets its values in its turn, by ``rollout``."""
    plan: list[str]
    """With dry_run: the steps that would be done, in words."""
    restarts: list[str]
    """The containers that are restarted because the change takes that."""
    restart_needed: list[str]
    """The containers for which the change takes effect only after a restart, where the request declined that restart."""
    notes: list[str]
    """The obstacles that may keep the containers from their work with the new values, one line each."""
    rollout: RolloutRecord | None
    """The rollout that gives containers their values in waves, and restarts those that it takes; null: there is none."""


class TargetRecord(TypedDict):
    """An exporter, in the form that Prometheus' http_sd asks for."""

    targets: list[str]
    labels: dict[str, str]


class LineRecord(TypedDict):
    """One line that a container printed, without commands for terminals. ``time`` is null if it is not known."""

    time: str | None
    container: str
    text: str


class EventRecord(TypedDict):
    """Something that happened: ``what`` is a word such as started, stopped, created, destroyed, cleaned."""

    time: str
    what: str
    container: str | None
    message: str
