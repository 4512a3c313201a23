"""The section ``apps`` of a fleet file: where its groups have an app, which releases the host is to have, and how many of
them are kept. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.apps import (
    ROOT,
    AppForm,
    AppUse,
    Release,
    check_app,
    check_covers,
    check_place,
    check_version,
    usual_target,
)
from lxcfleet.spec.container.volumes import within
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.reading.rows import Row, read_said
from lxcfleet.spec.reading.types import Choice, Text, Texts, Whole

KEY = "apps"
MOST = 1000
"""So many apps may stand in one file."""
MOST_KEPT = 1000
"""So many releases of an app may be kept."""
ROWS: Mapping[str, Row] = {
    row.key: row
    for row in (
        Row(Choice(AppForm), "How containers have its releases: mount or layer. Default: mount.", key="form"),
        Row(Text(check_place), "Where its releases are mounted, unless a group names the place; /opt/NAME.", key="mount"),
        Row(
            Whole(0, MOST_KEPT), "So many releases of it are kept when another one is sealed; 0: all. One that a container"
            " has, and the one before it, are kept in any case.", key="keep",
        ),
        Row(Texts(), "Versions that the host is to have. They are never removed as old ones.", key="releases"),
        Row(
            Texts(), "The files of the host that its layers may hide, or directories with such files. A release that was"
            " sealed with more is refused.", key="covers",
        ),
    )
}  # fmt: skip
"""The rows of the keys that an app may have in a file."""


Present = Mapping[str, Mapping[str, Release | None]]
"""The releases of each app that the host has, by version; None: its record can't be read."""


@dataclass(frozen=True)
class AppWish:
    """One app of the file."""

    name: str
    place: str
    """Where it stands in the file."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """Values by key of ``ROWS``."""
    hosts: tuple[str, ...] = ()

    @property
    def form(self) -> AppForm:
        """How containers have its releases."""
        return AppForm(self.said.get("form", AppForm.MOUNT))

    @property
    def target(self) -> str:
        """Where its releases are in containers."""
        return ROOT if self.form is AppForm.LAYER else str(self.said.get("mount", usual_target(self.name)))


def read(top: Fields, hosts: Row) -> dict[str, AppWish]:
    """The apps of a file with these keys, by name. ``hosts``: the row of the key that limits one to some hosts. Complaints go
    to ``top``."""
    section = top.nested(KEY)
    names = section.keys()
    if len(names) > MOST:
        top.complain(KEY, f"these are {len(names)} apps, and a file may have {MOST}")
        return {}
    found = {}
    for name in names:
        place = section.place(name)
        _check(section, name, check_app, name, place)
        inner = section.nested(name)
        said = read_said([*ROWS.values(), hosts], inner)
        for version in said.get("releases", ()):
            _check(inner, "releases", check_version, version)
        for path in said.get("covers", ()):
            _check(inner, "covers", check_covers, path)
        layer = said.get("form") is AppForm.LAYER
        for key, only in (("mount", AppForm.MOUNT), ("covers", AppForm.LAYER)):
            if key in said and layer is not (only is AppForm.LAYER):
                inner.complain(key, f"is for the form {only}")
        inner.close()
        found[name] = AppWish(name, place, {key: said[key] for key in ROWS if key in said}, said.get(hosts.key, ()))
    return found


def _check(fields: Fields, key: str, rule: Any, value: str, place: str = "") -> None:
    try:
        rule(value)
    except InvalidInput as error:
        fields.complain(key, f"{error.message}: {error.why or error.hint}", place)


def placed(values: dict[str, Any], raw: object, wishes: Mapping[str, AppWish]) -> str:
    """Have the app of a group where the section says, unless the group names a place. ``raw``: the app as the file has it.
    Gives what is wrong with it."""
    app = values.get("app")
    if isinstance(app, AppUse) and app.name in wishes:
        own = bool(raw.get("target")) if isinstance(raw, Mapping) else ":" in str(raw)
        wish = wishes[app.name]
        if not own:
            values["app"] = replace(app, target=wish.target)
        elif app.form is not wish.form:
            is_one = "no" if wish.form is AppForm.LAYER else "a"
            return f"{app} is {is_one} layer, and the section apps says form: {wish.form}"
    return ""


def missing(
    wishes: Mapping[str, AppWish], named: Mapping[AppUse, str], present: Present
) -> Iterator[str]:
    """A complaint for each release that the host does not have, that is of another form, or that covers too much. ``named``:
    the apps that groups have, each with its place in the file."""
    for wish in wishes.values():
        for version in wish.said.get("releases", ()):
            if version not in present.get(wish.name, ()):
                yield f"{wish.place}: apps: {wish.name}: {_told(wish.name, version)}"
    for app, place in named.items():
        sealed = present.get(app.name, {}).get(app.version)
        if app.version not in present.get(app.name, ()):
            yield f"{place}: app: {_told(app.name, app.version)}"
        elif sealed is not None and sealed.form is not app.form:
            yield f"{place}: app: {app.release} was sealed with the form {sealed.form}, and the file says {app.form}"
        elif sealed is not None:
            allowed = wishes[app.name].said.get("covers", ())
            more = [path for path in sealed.covers if not any(within(path, each) for each in allowed)]
            if more:
                hidden = ", ".join(more)
                yield f"{place}: app: {app.release} may hide {hidden}, which `covers` in the section apps does not name"


def _told(name: str, version: str) -> str:
    return f"{name}@{version} is not on this host: lxcfleet app add {name} DIR --version {version}"
