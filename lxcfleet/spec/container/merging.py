"""Merging a request, its profile and the settings into one spec. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxcfleet.spec.container import combinations
from lxcfleet.spec.container.fields import PRIVILEGED, askable, table
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.rows import Row
from lxcfleet.spec.reading.terms import Init

NOT_YET = 0
"""The first id of a spec whose range is not chosen yet."""


def merge(request: Mapping[str, Any], profile: Mapping[str, Any], settings: object) -> Spec:
    """The spec for a request. A value of the request comes before one of the profile, then ``settings``, then the default.

    ``request`` and ``profile`` have values by key of the table. The spec has no name, ids or address yet. Raises
    InvalidInput if fields don't go together.
    """
    spec = merged(request, profile, settings)
    combinations.check(spec)
    return spec


def merged(request: Mapping[str, Any], profile: Mapping[str, Any], settings: object) -> Spec:
    """The same, whether or not fields go together."""
    init = init_of(request, profile)
    values: dict[str, Any] = {}
    for key, row in askable().items():
        # A profile may serve both kinds of containers: its fields for the other kind are left out.
        of_profile = profile if row.init in (None, init) else {}
        if key in request and key in of_profile:
            values[key] = row.type.merge(of_profile[key], request[key])
        elif key in request or key in of_profile:
            values[key] = request[key] if key in request else of_profile[key]
        elif row.setting:
            values[key] = usual(row, settings)
    values["init"] = init
    privileged = values.pop(PRIVILEGED.key, False)
    if privileged and "disk" not in request and "disk" not in profile:
        values["disk"] = 0  # the settings' limit can't hold a privileged container
    return Spec(**values, first_id=None if privileged else NOT_YET)


def init_of(request: Mapping[str, Any], profile: Mapping[str, Any]) -> Init:
    """The kind of init that was asked for; otherwise app if there is a command."""
    if "init" in request:
        return Init(request["init"])
    if request.get("command"):
        return Init.APP
    if "init" in profile:
        return Init(profile["init"])
    return Init.APP if profile.get("command") else Init.SYSTEM


def usual(row: Row, settings: object) -> Any:
    """The value of a field that neither request nor profile has."""
    if not row.setting or not row.taken_over:
        return row.default
    value = settings
    for part in row.setting.split("."):
        value = getattr(value, part)
    return value


def left_to_settings(request: Mapping[str, Any], profile: Mapping[str, Any]) -> frozenset[str]:
    """The keys that neither request nor profile has, and whose values then come from the settings, or stay as they are."""
    return frozenset(
        key for key, row in table().items() if (row.setting or row.stays) and key not in request and key not in profile
    )


def differences(has: Spec, wanted: Spec, left: frozenset[str] = frozenset()) -> dict[str, tuple[str, str]]:
    """The fields in which ``has`` differs from ``wanted``: both values in words, by key. Keys in ``left`` don't count.

    Environment variables are told by name only: their values may be secrets, and the words end up in logs.
    """
    found: dict[str, tuple[str, str]] = {}
    for key, row in askable().items():
        one, other = getattr(has, key), getattr(wanted, key)
        if key in left or one == other:
            continue
        if one is None or other is None:
            found[key] = (row.tell(one), row.tell(other))
        else:
            found[key] = row.type.tell_difference(one, other)
    return found
