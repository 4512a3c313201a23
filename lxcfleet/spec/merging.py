"""From what a request, its profile and the settings say to the spec that holds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lxcfleet.spec import combinations
from lxcfleet.spec.fields import PRIVILEGED, askable, table
from lxcfleet.spec.rows import Row
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.terms import Init

NOT_YET = 0
"""The first id of a spec whose range is not chosen yet."""


def merge(request: Mapping[str, Any], profile: Mapping[str, Any], settings: object) -> Spec:
    """The spec that a request comes to: what it says, before its profile, before ``settings``, before the defaults.

    ``request`` and ``profile`` have values by key of the table. The spec has no name, ids or address yet. Raises
    InvalidInput if parts of it don't go together.
    """
    init = _init(request, profile)
    values: dict[str, Any] = {}
    for key, row in askable().items():
        # What a profile says for the other kind of container is no mistake of the request's: it is left out.
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
        values["disk"] = 0  # the settings' limit is for those that can be held to it
    spec = Spec(**values, first_id=None if privileged else NOT_YET)
    combinations.check(spec)
    return spec


def _init(request: Mapping[str, Any], profile: Mapping[str, Any]) -> Init:
    """What runs as process 1: as was said, else an app where there is a command."""
    if "init" in request:
        return Init(request["init"])
    if request.get("command"):
        return Init.APP
    if "init" in profile:
        return Init(profile["init"])
    return Init.APP if profile.get("command") else Init.SYSTEM


def usual(row: Row, settings: object) -> Any:
    """The value of a field of which nothing is said. Where None is one, the setting holds when the value is used, not from
    the creation on."""
    if not row.setting or row.default is None:
        return row.default
    value = settings
    for part in row.setting.split("."):
        value = getattr(value, part)
    return value


def left_to_settings(request: Mapping[str, Any], profile: Mapping[str, Any]) -> frozenset[str]:
    """The keys that neither says, so that they are as the settings are at the moment."""
    return frozenset(key for key, row in table().items() if row.setting and key not in request and key not in profile)


def differences(has: Spec, wanted: Spec, left: frozenset[str] = frozenset()) -> dict[str, tuple[str, str]]:
    """In what ``has`` is not as ``wanted`` among what can be asked for: both in words, by key. Keys in ``left`` don't count.

    Of variables only the names: their values may be secrets, and this ends in logs.
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
