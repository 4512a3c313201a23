"""The records of the checks stale, verify and audit, as they travel between client and daemon. Values only."""

from __future__ import annotations

from typing import TypedDict


class ProcessRecord(TypedDict):
    """A process in a container. ``pid``: its number on the host."""

    pid: int
    command: str


class OldFileRecord(TypedDict):
    """A file that is old. ``layer``: the layer that has the path now. ``why``: replaced or removed, while a process runs
    it; served: the container gets the old file when it opens the path; monitor: the container's monitor maps the file;
    client: its DHCP client does; modules: an interpreter may have read the file."""

    path: str
    why: str
    layer: str
    package: str | None
    """The package that owns the file on the host."""
    version: str | None
    """The version of that package on the host."""
    processes: list[ProcessRecord]


class FallRecord(TypedDict):
    """A container that does not run because of a patch. ``since``: when the daemon noted that."""

    name: str
    since: str
    why: str


class RejectionRecord(TypedDict):
    """A patch that is not chosen again by itself, as a rollout of it failed."""

    since: str
    container: str
    """The container at which the rollout halted."""
    why: str
    packages: dict[str, list[str]]
    """The packages that changed since it was well, with their versions then and now; empty: not known."""


class NoticeRecord(TypedDict):
    """The progress of a change of the host's packages: see patch.notice."""

    phase: str
    policy: str
    why: str
    until: str | None
    """When the next maintenance window begins, if the daemon waits for one."""
    down: list[FallRecord]
    stopped: list[FallRecord]
    """Containers that a patch took down and that the operator stopped since: no rollout starts them."""
    reboot: list[str]
    """Packages whose new version takes a reboot of the host."""
    rebooting: str
    """The state of that reboot, if the daemon is to do it (`patch: {reboot: window}`); empty: it is left to the
    operator, or none is due."""
    rejected: RejectionRecord | None
    """Why the host's packages as they are now do not come into containers by themselves; null: nothing speaks against it."""


class StaleRecord(TypedDict):
    """The findings of ``stale`` in one container."""

    name: str
    state: str
    stale: bool
    processes: int
    """How many processes were looked at."""
    mappings: int
    """How many executable mappings of these processes were compared."""
    files: list[OldFileRecord]
    base: int | None
    """The generation that it has for the time being, as dpkg was at work when it started: a restart moves it. Null: none."""
    problem: str | None
    """Why not all processes could be looked at."""


class PartRecord(TypedDict):
    """One of lxcfleet's own parts, a process of the host: lxcfleetd, launcher, booter, attacher, forwarder, dnsmasq or
    responder; or exec, the process that serves a command of `exec` or `shell`."""

    name: str
    pid: int
    container: str | None
    """The container in which it serves a command; null for all but exec."""
    since: str | None
    """The start of that command."""
    stale: bool
    renewing: bool
    """Whether the daemon is about to renew it."""
    files: list[OldFileRecord]
    """The old files that it runs, or that it may have read."""
    hint: str
    """The way that it is renewed; empty if it is not stale."""


class ShadowRecord(TypedDict):
    """A file in a delta, or in the layer of an app, that hides a package's file of the host."""

    path: str
    kind: str
    """file, removed, or directory."""
    age: str
    """The age of the delta's file: newer or older than the host's, or same; empty where there is nothing to compare."""
    same: bool
    """Whether both files have the same content, as yet."""
    package: str
    version: str
    """The version of that package on the host."""
    layer: str
    """Where it is: delta, or ``app NAME@VERSION``."""


class DivergedRecord(TypedDict):
    """How a container's packages differ from the host's."""

    added: dict[str, str]
    removed: list[str]
    changed: dict[str, list[str]]
    """The container's version of each package, and the host's."""


class ShadowsRecord(TypedDict):
    """The findings of ``audit shadow`` in one container."""

    name: str
    state: str
    shadows: list[ShadowRecord]
    diverged: DivergedRecord | None
    """null: the container has the host's packages."""
    mounts: dict[str, list[str]]
    """The packages with files below each place where it mounts something else: their patches do not reach it there."""
    app: str | None
    """The release of its app, as NAME@VERSION."""
    brings: list[str]
    """Files of its app that have the name of one of the host's libraries: patches of the host do not reach them."""
    problem: str | None


class EvidenceRecord(TypedDict):
    """The evidence of ``verify`` about one container."""

    name: str
    state: str
    app: str | None
    """The release of its app, as NAME@VERSION."""
    proven: bool
    reasons: list[str]
    """Why the container is not proven."""
    note: str | None
    """Something that does not count against the proof, and that one should know."""
    restarted: str | None
    """When its process 1 began; null: the container does not run, so its next start gets a fresh mount."""
    processes: int
    mappings: int
    """How many executable mappings were compared with the files of the base."""
    compared: int
    """How many files of packages were compared with the files that the container gets when it opens them."""
    not_compared: list[str]
    """The things that were not compared, in words: the proof does not rest on them."""
    old: list[OldFileRecord]
    """Old files that are still in use; the container is proven only if there are none."""
    shadows: list[ShadowRecord]


class PlaceRecord(TypedDict):
    """Containers in which a CVE has the same state."""

    state: str
    """old-code-runs, fix-available, open, unknown or proven."""
    why: list[str]
    containers: list[str]


class CveRecord(TypedDict):
    """A CVE in the packages of one source. ``packages``: those that the containers have."""

    cve: str
    source: str
    packages: list[str]
    fixed: str | None
    """The version of the source that closed it, as its changelog tells."""
    line: str | None
    """The words of the changelog."""
    partly: bool
    """Whether these words may say that only a part is closed, or that it is not."""
    urgency: str | None
    """low, medium or high, as the data of debsecan has it."""
    remote: bool | None
    """Whether it can be used over a network."""
    description: str | None
    places: list[PlaceRecord]
    """The worst state first."""


class UnreadRecord(TypedDict):
    """A source whose packages changed, and of which it is not known which CVEs that closed."""

    source: str
    packages: list[str]
    why: str
    containers: list[str]


class CveDataRecord(TypedDict):
    """debsecan's data. ``written``: when the file was written; ``days``: its age."""

    file: str
    written: str | None
    days: float | None
    problem: str | None
    """Why it could not be used."""


class CvesRecord(TypedDict):
    """The known CVEs in some containers."""

    time: str
    containers: list[str]
    sets: int
    """How many distinct sets of packages these have."""
    cves: list[CveRecord]
    unread: list[UnreadRecord]
    data: CveDataRecord | None
    """null: the settings name none, so holes that no version closes yet are not known."""


class CveProofRecord(TypedDict):
    """A CVE that a proof is about."""

    cve: str
    packages: list[str]
    """The packages that it is in; none: no changelog and no data of debsecan names it, or they are not installed."""
    named: bool
    """Whether a changelog of an installed package, or the data, names it."""
    line: str | None


class ProofRecord(TypedDict):
    """The evidence after a patch: a record for the operator to file."""

    time: str
    host: str
    system: str
    kernel: str
    base: str
    """A fingerprint of the host's packages and their versions, with which the containers were compared."""
    packages: dict[str, str]
    """The packages that were asked for, with their version on the host; empty: all packages count."""
    renamed: dict[str, list[str]]
    """Names that were asked for and that no package has any more, with the packages that provide or replace these."""
    gone: dict[str, int]
    """Packages that were asked for and that the host has no more, with the number of their former files that are known."""
    reboot: list[str]
    """Packages whose new version takes a reboot of the host: until then the containers run an older version than the
    installed one. They count against the proof only where they were asked for."""
    cves: list[CveProofRecord]
    """The CVEs that were asked for; empty: fixes of all kinds count."""
    proven: bool
    """Whether all containers are proven, and none of ``parts`` is stale."""
    containers: list[EvidenceRecord]
    parts: list[PartRecord]
    """lxcfleet's own parts; only sessions in the chosen containers if the request was about some of the containers."""


class ExposedRecord(TypedDict):
    """A file of the host that a container can read and should not; ``rule``: the rule of the mask that hides it."""

    path: str
    why: str
    rule: str


class ExposureRecord(TypedDict):
    """The findings of ``audit exposure`` in one container."""

    name: str
    state: str
    exposed: list[ExposedRecord]
    problem: str | None
    """Why the container could not be looked at."""
