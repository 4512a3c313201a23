"""Which changes that need no restart are made in waves all the same, as a rollout. Pure.

A limit that is too low for what a container does, or a check that it can't pass, is the same to all containers that get it.
So one of them gets it first, if there is anything to see by: see ``rollout: {gate_live: …}``. What can't harm a container
that was well before (labels, names, a higher limit) is changed in all of them at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from lxcfleet.containers.reconciling.changes import risky
from lxcfleet.containers.requests.changing import Planned
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.policies.rollout import GateLive, ProfileRollout, RolloutSettings, Share

Own = Callable[[Spec | None], ProfileRollout]
"""The rollout settings that its group or profile has for a container."""
Crew = Callable[[Spec | None], str | None]
"""The group or profile of a container that has canaries of its own; None: it is among all the others."""


def choose(planned: Sequence[Planned], policy: RolloutSettings, own: Own, crew: Crew) -> list[Planned]:
    """Those of these changes that are made in waves. As many as canaries are nobody's canaries, unless what halts is taken
    back by itself."""
    found = [each for each in planned if _is_gated(each, policy.gate_live, own)]
    sizes = Counter(crew(each.spec) for each in found)
    shares = {crew(each.spec): _canaries(each, policy, own) for each in found}
    many = {name for name, size in sizes.items() if size > shares[name].of(size)}
    return [each for each in found if own(each.spec).auto_revert or crew(each.spec) in many]


def _canaries(each: Planned, policy: RolloutSettings, own: Own) -> Share:
    """How many go first of those that it is among, which say the same."""
    share = own(each.spec).canaries
    return policy.canaries if share is None else share


def _is_gated(each: Planned, which: GateLive, own: Own) -> bool:
    running = each.container.running
    if which is GateLive.NONE or running is None or not risky(each.former, each.spec) or running.payload.frozen:
        return False
    return which is GateLive.ALL or each.spec.check is not None or bool(own(each.spec).tests)
