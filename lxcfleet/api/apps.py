"""Records and requests of calls about apps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from lxcfleet.api.records import ResultRecord, RolloutRecord
from lxcfleet.api.requests import read_rollout_policy, read_selection, selection_to_json
from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import read_said, render_said
from lxcfleet.spec.selection import Selection

MOST_KEPT = 1000
MOST_STRIPPED = 16
USUAL_BAKE, LONGEST_BAKE = 3600.0, 86400.0
"""Seconds."""
_MOST_NAMED = 1000


def _form(fields: Fields) -> tuple[str, tuple[str, ...]]:
    """The form of a release, and what it may cover."""
    from lxcfleet.spec.container.apps import AppForm, check_covers  # noqa: PLC0415  the command line starts with this module

    form = fields.text("form") if fields.has("form") else AppForm.MOUNT.value
    covers = fields.texts("covers")
    if form not in [*AppForm]:
        fields.complain("form", f"{form!r} is none of {', '.join(AppForm)}")
    if covers and form == AppForm.MOUNT:
        fields.complain("covers", "is for a layer: what is mounted hides nothing")
    for each in covers[:_MOST_NAMED]:
        try:
            check_covers(each)
        except InvalidInput as error:
            fields.complain("covers", ": ".join(part for part in (error.message, error.why or error.hint) if part))
    if len(covers) > _MOST_NAMED:
        fields.complain("covers", f"are more than {_MOST_NAMED}")
    return form, covers


class AppRecord(TypedDict):
    """One release of an app."""

    name: str
    version: str
    release: str
    """NAME@VERSION."""
    size_bytes: int
    files: int
    digest: str
    """SHA-256 of the list of its files, with their modes and contents."""
    created: str
    source: str
    """Where it came from."""
    containers: list[str]
    """The containers that have it, or will from their next start on."""
    base: str
    """The base that it was built on; empty: it was not built here."""
    packages: dict[str, str]
    """The packages that it was built against, with their versions."""
    older: dict[str, list[str | None]]
    """Of these, the ones that the host has in another version now: the version then, and now; null: not installed."""
    form: str
    """How containers have it: mount or layer."""
    covers: list[str]
    """Of a layer: what of the host it may hide."""
    no_erofs: str
    """Of a layer: why its image is ext4; empty: it is erofs."""
    path: str
    problem: str | None
    """Why it can't be used."""


class AppCheckRecord(TypedDict):
    """Whether a release is what was sealed."""

    release: str
    whole: bool
    problem: str | None
    """The alteration that was found, and what to do."""


class AppSwitchRecord(TypedDict):
    """The outcome of ``app use`` or ``app undo``."""

    changed: bool
    dry_run: bool
    apps: dict[str, list[str | None]]
    """By container: the release that it had, and the one that it gets; null: none."""
    results: list[ResultRecord]
    """The outcome for those that do not run."""
    restarts: list[str]
    """Those that run: they are restarted with it, in waves."""
    rollout: RolloutRecord | None
    """The rollout that restarts them."""


@dataclass(frozen=True)
class AddAppRequest:
    """``lxcfleet app add``: seal a release of a directory or an archive of the host."""

    name: str
    version: str
    source: str
    """The absolute path of a directory, or of a tar archive."""
    strip: int = 0
    """So many directories are taken off the names in an archive."""
    keep: int | None = None
    """So many releases of the app are kept; None: as fleet files and the settings say; 0: all."""
    dry_run: bool = False
    form: str = "mount"
    """How containers have it: mount or layer."""
    covers: tuple[str, ...] = ()
    """Of a layer: what of the host it may hide."""

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {**asdict(self), "covers": list(self.covers)}

    @classmethod
    def from_json(cls, data: object) -> AddAppRequest:
        """From a body; raises InvalidInput."""
        from lxcfleet.spec.container.apps import check_app, check_version  # noqa: PLC0415  the command line starts with this module

        fields = Fields(data, "request")
        request = cls(
            fields.text("name"), fields.text("version"), fields.text("source"), fields.integer("strip", 0, 0, MOST_STRIPPED),
            fields.integer("keep", 0, 0, MOST_KEPT) if fields.has("keep") else None, fields.flag("dry_run"), *_form(fields),
        )  # fmt: skip
        for key, rule in (("name", check_app), ("version", check_version)):
            try:
                rule(getattr(request, key))
            except InvalidInput as error:
                fields.complain(key, f"{error.message}: {error.why}")
        if not request.source.startswith("/"):
            fields.complain("source", "must be an absolute path")
        fields.finish("the request to add an app is not valid")
        return request


@dataclass(frozen=True)
class BakeAppRequest:
    """``lxcfleet app bake``: build a release in a throwaway clone. ``said``: what the clone is to be like, as for ``create``,
    its command among it."""

    name: str
    version: str
    path: str = ""
    """The directory of the clone that becomes the release; empty: /opt/NAME."""
    timeout: float = USUAL_BAKE
    """Seconds that the command may take."""
    keep: int | None = None
    dry_run: bool = False
    said: Mapping[str, Any] = field(default_factory=dict)
    form: str = "mount"
    covers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The body."""
        from lxcfleet.spec.container.fields import askable  # noqa: PLC0415  the command line starts with this module

        own = {key: getattr(self, key) for key in ("name", "version", "path", "timeout", "keep", "dry_run", "form")}
        return {**own, "covers": list(self.covers), "container": render_said(askable(), self.said)}

    @classmethod
    def from_json(cls, data: object) -> BakeAppRequest:
        """From a body; raises InvalidInput."""
        from lxcfleet.spec.container.apps import check_app, check_place, check_version  # noqa: PLC0415
        from lxcfleet.spec.container.fields import askable  # noqa: PLC0415

        fields = Fields(data, "request")
        container = fields.nested("container")
        request = cls(
            fields.text("name"), fields.text("version"), fields.text("path"),
            fields.number("timeout", USUAL_BAKE, 1, LONGEST_BAKE),
            fields.integer("keep", 0, 0, MOST_KEPT) if fields.has("keep") else None, fields.flag("dry_run"),
            read_said(askable().values(), container), *_form(fields),
        )  # fmt: skip
        container.close()
        for key, rule in (("name", check_app), ("version", check_version), ("path", check_place)):
            try:
                if key != "path" or request.path:
                    rule(getattr(request, key))
            except InvalidInput as error:
                fields.complain(key, f"{error.message}: {error.why}")
        if not request.said.get("command"):
            fields.complain("container", "has no command")
        fields.finish("the request to bake an app is not valid")
        return request


@dataclass(frozen=True)
class NamedAppsRequest:
    """``lxcfleet app rm`` and ``app verify``. ``names``: each NAME@VERSION; for ``verify`` also NAME, or none: all."""

    names: tuple[str, ...] = ()
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {"names": list(self.names), "dry_run": self.dry_run}

    @classmethod
    def from_json(cls, data: object) -> NamedAppsRequest:
        """From a body; raises InvalidInput."""
        from lxcfleet.spec.container.apps import check_app, parse_release  # noqa: PLC0415

        fields = Fields(data, "request")
        request = cls(tuple(dict.fromkeys(fields.texts("names"))), fields.flag("dry_run"))
        if len(request.names) > _MOST_NAMED:
            fields.complain("names", f"are more than {_MOST_NAMED}")
        for name in request.names[:_MOST_NAMED]:
            try:
                if "@" in name:
                    parse_release(name)
                else:
                    check_app(name)
            except InvalidInput as error:
                fields.complain("names", ": ".join(part for part in (error.message, error.why) if part))
        fields.finish("the request is not valid")
        return request


@dataclass(frozen=True)
class UseAppRequest:
    """``lxcfleet app use``; without a release ``app undo``."""

    selection: Selection
    release: str | None = None
    """NAME@VERSION[:/PATH]; None: the one that each of them had before."""
    policy: Mapping[str, Any] = field(default_factory=dict)
    """The values of the rollout's policy that differ from the settings."""
    revert: bool = True
    """Whether a rollout that halts puts the former release back."""
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        """The body."""
        return {
            "selection": selection_to_json(self.selection),
            "release": self.release,
            "policy": dict(self.policy),
            "revert": self.revert,
            "dry_run": self.dry_run,
        }

    @classmethod
    def from_json(cls, data: object) -> UseAppRequest:
        """From a body; raises InvalidInput."""
        from lxcfleet.spec.container.apps import parse_app  # noqa: PLC0415

        fields = Fields(data, "request")
        request = cls(
            read_selection(fields.nested("selection")), fields.optional_text("release"), read_rollout_policy(fields),
            fields.flag("revert", True), fields.flag("dry_run"),
        )  # fmt: skip
        if not (request.selection.narrow or request.selection.everything):
            fields.complain("selection", "chooses nothing")
        if request.release is not None:
            try:
                parse_app(request.release)
            except InvalidInput as error:
                fields.complain("release", ": ".join(part for part in (error.message, error.why) if part))
        fields.finish("the request is not valid")
        return request
