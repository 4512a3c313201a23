"""The requests that the client sends to the daemon in bodies. Values only.

The daemon checks a request when it reads it, and tells everything that is wrong with it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.policies import rollout
from lxcfleet.spec.reading.names import MAX_COUNT, MAX_DRAIN, check_label, check_name
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said, render_said, rows_of
from lxcfleet.spec.selection import Selection
from lxcfleet.spec.states import Action


@dataclass(frozen=True)
class CreateRequest:
    """``lxcfleet create``. Without a name PREFIX is ``c``; without a count the name is taken as it is."""

    name: str | None = None
    count: int | None = None
    ensure: bool = False
    start: bool = True
    dry_run: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)
    """Values by key of the table of fields. A missing key gets its value from the profile or the settings."""
    update: bool = False
    """Whether containers that exist are changed to the values asked for, too; only with ``ensure``."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        from lxcfleet.spec.container.fields import askable  # noqa: PLC0415  the command line starts with this module

        own = {key: getattr(self, key) for key in ("name", "count", "ensure", "update", "start", "dry_run")}
        return {**own, **render_said(askable(), self.said)}

    @classmethod
    def from_json(cls, data: object) -> CreateRequest:
        """From a body; raises InvalidInput with everything that is wrong with it.

        An empty list or mapping, and false where false is the default, count as not said, as in the first version.
        """
        from lxcfleet.spec.container.fields import askable  # noqa: PLC0415

        fields = Fields(data, "request")
        request = cls(
            name=fields.optional_text("name"),
            count=fields.integer("count", 1, 1, MAX_COUNT) if fields.has("count") else None,
            ensure=fields.flag("ensure"),
            update=fields.flag("update"),
            start=fields.flag("start", True),
            dry_run=fields.flag("dry_run"),
            said={
                key: value
                for key, value in read_said(askable().values(), fields).items()
                if _says_something(value, askable()[key].default)
            },
        )
        if request.update and not request.ensure:
            fields.complain("update", "goes with ensure alone")
        if request.name is not None:
            try:
                check_name(request.name)
            except InvalidInput as error:
                fields.complain("name", f"{error.message}: {error.why}")
        fields.finish("the request to create containers is not valid")
        return request


def _says_something(value: object, default: object) -> bool:
    return bool(value) or value != default or not isinstance(value, bool | tuple | Mapping)


@dataclass(frozen=True)
class ActionRequest:
    """``lxcfleet start|stop|…``. ``force``: destroy running containers, too. ``until_boot``: the stopped
    containers start again when the host boots."""

    action: Action
    selection: Selection
    timeout: float | None = None
    """Seconds until a stop becomes a kill; null: as the settings say."""
    drain: float | None = None
    """Seconds between the withdrawal of names and ports and the stop; null: as each spec says."""
    force: bool = False
    until_boot: bool = False
    dry_run: bool = False
    no_deps: bool = False
    """With start and restart: whatever the containers do that the chosen ones depend on."""
    with_snapshots: bool = False
    """With destroy: also containers that have snapshots, which are removed with them."""

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
            no_deps=fields.flag("no_deps"),
            with_snapshots=fields.flag("with_snapshots"),
        )
        if request.with_snapshots and request.action is not Action.DESTROY:
            fields.complain("with_snapshots", "goes with destroy alone")
        if request.no_deps and request.action not in (Action.START, Action.RESTART):
            fields.complain("no_deps", "goes with start and restart alone")
        if request.until_boot and request.action is not Action.STOP:
            fields.complain("until_boot", "goes with stop alone")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class SetRequest:
    """``lxcfleet set``. Either all chosen containers are changed, or none if one of them can't be."""

    selection: Selection
    assignments: tuple[str, ...]
    """Each a KEY=VALUE as the command line takes it, such as ``memory=512M``, ``labels.tier=front``, ``drain=`` (the
    default) and ``labels.tier=`` (none)."""
    restart: bool = True
    """Whether a rollout restarts the running containers if a change takes a restart."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The values of that rollout's policy that differ from the settings."""
    dry_run: bool = False
    ignore_depends: bool = False
    """Whether containers get another base on which their own packages would break."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "assignments": list(self.assignments), "selection": selection_to_json(self.selection)}

    @classmethod
    def from_json(cls, data: object) -> SetRequest:
        """From a body; raises InvalidInput with all that is wrong with it, with any of the assignments, too."""
        from lxcfleet.spec.container.assignments import parse_all  # noqa: PLC0415  the command line starts with this module

        fields = Fields(data, "request")
        request = cls(
            selection=read_selection(fields.nested("selection")),
            assignments=fields.texts("assignments"),
            restart=fields.flag("restart", True),
            policy=read_rollout_policy(fields),
            dry_run=fields.flag("dry_run"),
            ignore_depends=fields.flag("ignore_depends"),
        )
        if not request.assignments:
            fields.complain("assignments", "say what to set, as KEY=VALUE")
        fields.finish("the request is not valid")
        parse_all(request.assignments)
        return request


@dataclass(frozen=True)
class RolloutRequest:
    """``lxcfleet patch apply``, and ``restart --rolling``. ``policy``: its values that differ from the settings.

    ``force``: also a patch that was rejected.
    """

    kind: str
    selection: Selection
    policy: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False
    force: bool = False

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
            policy=read_rollout_policy(fields),
            dry_run=fields.flag("dry_run"),
            force=fields.flag("force"),
        )
        if request.kind not in ("patch", "restart"):
            fields.complain("kind", "is none of patch, restart")
        fields.finish("the request is not valid")
        return request


def read_rollout_policy(fields: Fields) -> dict[str, Any]:
    """The policy of a rollout in a body; complaints go to ``fields``."""
    said = rollout.read_policy(fields.nested("policy"))
    return {key: rows_of(rollout.RolloutSettings)[key].render(value) for key, value in said.items()}


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


@dataclass(frozen=True)
class FixShadowsRequest:
    """``lxcfleet audit shadow --fix``. ``paths``: the shadows to be removed. ``packages``: those of these packages, too."""

    selection: Selection
    paths: tuple[str, ...]
    dry_run: bool = False
    packages: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {
            "selection": selection_to_json(self.selection),
            "paths": list(self.paths),
            "packages": list(self.packages),
            "dry_run": self.dry_run,
        }

    @classmethod
    def from_json(cls, data: object) -> FixShadowsRequest:
        """From a body; raises InvalidInput, also where nothing is chosen."""
        fields = Fields(data, "request")
        chosen = read_selection(fields.nested("selection"))
        request = cls(chosen, fields.texts("paths"), fields.flag("dry_run"), fields.texts("packages"))
        if not (request.selection.narrow or request.selection.everything):
            fields.complain("selection", "chooses nothing")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class RefreshSecretsRequest:
    """``lxcfleet secret refresh``. Without names ``everything`` has to be said."""

    names: tuple[str, ...]
    everything: bool = False
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "names": list(self.names)}

    @classmethod
    def from_json(cls, data: object) -> RefreshSecretsRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.texts("names"), fields.flag("everything"), fields.flag("dry_run"))
        if bool(request.names) == request.everything:
            fields.complain("names", "say which secrets, or that all are meant")
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class CreateVolumeRequest:
    """``lxcfleet volume create``. ``ensure``: it only has to be there."""

    name: str
    size: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    ensure: bool = False
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "labels": dict(self.labels)}

    @classmethod
    def from_json(cls, data: object) -> CreateVolumeRequest:
        """From a body; raises InvalidInput."""
        from lxcfleet.spec.container.volumes import check_volume  # noqa: PLC0415  the command line starts with this module

        fields = Fields(data, "request")
        request = cls(
            fields.text("name"), fields.size("size", 0), fields.pairs("labels", check_label), fields.flag("ensure"),
            fields.flag("dry_run"),
        )  # fmt: skip
        try:
            check_volume(request.name)
        except InvalidInput as error:
            fields.complain("name", f"{error.message}: {error.why}")
        fields.finish("the request to create a volume is not valid")
        return request


@dataclass(frozen=True)
class RemoveVolumesRequest:
    """``lxcfleet volume rm``: all of them, or none if one is in use."""

    names: tuple[str, ...]
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"names": list(self.names), "dry_run": self.dry_run}

    @classmethod
    def from_json(cls, data: object) -> RemoveVolumesRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(tuple(dict.fromkeys(fields.texts("names"))), fields.flag("dry_run"))
        if not request.names:
            fields.complain("names", "say which volumes")
        fields.finish("the request to remove volumes is not valid")
        return request


@dataclass(frozen=True)
class ResumeRequest:
    """``lxcfleet rollout resume``. ``accept``: leave the containers that failed as they are."""

    accept: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"accept": self.accept}

    @classmethod
    def from_json(cls, data: object) -> ResumeRequest:
        """From a body; raises InvalidInput."""
        fields = Fields(data, "request")
        request = cls(fields.flag("accept"))
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
    """The selection in a body, as ``selection_to_json`` writes it; complaints go to ``fields``."""
    selection = Selection(
        patterns=inner.texts("patterns"),
        labels=tuple(inner.pairs("labels", check_label).items()),
        everything=inner.flag("everything"),
    )
    inner.close()
    return selection


class AttachRequest(TypedDict):
    """The first message on the attach socket; stdin, stdout and stderr travel with it as descriptors. A terminal is refused:
    processes that the command leaves behind could go on to use it.

    The socket is of type SOCK_SEQPACKET, each message one JSON object. With ``tty`` the answer
    ``{"terminal": true}`` carries the master side of a terminal inside the container. The client may send
    ``{"signal": N}``; at the end comes ``{"exit": status}`` or ``{"error": ErrorBody}``.
    If the client goes away the command gets SIGHUP.
    """

    name: str
    command: list[str]
    """Empty: a login shell of root."""
    environment: dict[str, str]
    tty: bool


class ForegroundRequest(TypedDict):
    """Another first message on the attach socket: run a container in the foreground, for `lxcfleet run`.

    The standard streams travel with it, and terminals are refused, as for AttachRequest. Signals are sent as there, and
    ``{"size": [ROWS, COLUMNS]}`` gives a terminal another size. Answers: ``{"status": TEXT}`` while the start waits for
    something, ``{"started": PID}``, with ``tty`` ``{"terminal": true}`` with the master side of the container's console, and
    at the end ``{"exit": STATUS, "renew": BOOL}``, or ``{"error": ErrorBody}``, with an exit status as a shell has it if the
    command is no program. A status of null is not known to who tells it: the daemon may know it, as ever with a system
    container; ``likely`` is the one to take if not. ``renew``: somebody wanted a restart, and it is for its caller to
    begin it anew. If the client goes away, the container is stopped, unless ``detach`` is set.
    """

    run: str
    """The container's name."""
    create: dict[str, Any] | None
    """The body of a request to create it, if it does not exist; null: it has to exist."""
    stdin: bool
    """Whether its command gets stdin."""
    tty: bool
    """Whether its command gets a terminal."""
    remove: bool
    """Whether it is destroyed once it has ended."""
    detach: bool
