"""The things that a rollout under way may still give its members: until it has ended, none of them may be removed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError, WrongState
from lxcfleet.patch.rollout import change_sets, state
from lxcfleet.patch.rollout.state import RolloutKind
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk
from lxcfleet.units import some

_NAMED = 5


def refuse_claimed(paths: Paths, registry: Registry, what: str, names_it: Callable[[Spec], bool]) -> None:
    """Raise WrongState if the rollout under way may give a container a spec that names ``what``: a new one, or its former one
    again. ``names_it`` tells whether a spec does."""
    try:
        rollout = state.from_json(ondisk.text(paths.rollout))
        if rollout.status.ended or rollout.kind is not RolloutKind.CHANGE:
            return
        members = change_sets.load(paths.change_sets / f"{rollout.id}.json").members
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # then it can give nobody anything, either
    claimed = []
    for container in registry:
        specs, now = members.get(container.name), container.wanted
        if specs is None or now is None:
            continue
        for values in (specs.former, specs.wanted):
            with contextlib.suppress(FleetError):
                if container.name not in claimed and names_it(change_sets.applied(now, values)):
                    claimed.append(container.name)
    if claimed:
        raise WrongState(
            f"{what} is in use",
            why=f"the rollout {rollout.id} is {rollout.status}, and may give it to {some(claimed, _NAMED)}",
            hint="wait for it (`lxcfleet rollout status --follow`), or end it with `lxcfleet rollout abort`",
        )
