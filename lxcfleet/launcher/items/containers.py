"""The launcher's work with containers: arguments and answers."""

from __future__ import annotations

from typing import Any, TypedDict

from lxcfleet.errors import ErrorBody


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
    started: str
    """The text of the spec that it is started with, if that is another one than the spec on disk; empty: it is that one."""
    mount: bool
    """Whether its layers are mounted: then the mount namespace comes with the answer, as a descriptor."""
    reconcile: bool
    """Whether the host's changes are merged into its delta."""
    files: dict[str, str]
    """Files for its directory: name to text."""
    volumes: list[str]
    """The mounts that it has beside its layers, as texts; see spec.container.volumes."""
    secrets: Any
    """Its secrets, whose values are there; see data.secrets.Item."""
    devices: list[str]
    """The host's devices that it is given, by name; see spec.container.devices."""


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
    """The signal that ends it if its client is gone."""
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


class TrialItem(TypedDict):
    """A test of a container to run."""

    name: str
    pid: int
    """The container's process 1."""
    command: list[str]
    environment: dict[str, str]
    """Variables besides the usual ones."""
    timeout: float
    """Seconds."""
    inside: bool
    """Whether it is run in the container, and not on the host."""


class CheckAnswer(TypedDict):
    """The outcome of such a command."""

    name: str
    error: ErrorBody | None
    status: int | None
    """The exit status; None: the command took too long."""
    output: str
