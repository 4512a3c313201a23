"""Which changes without a restart are made in waves: by how many of each crew there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers.requests.changing import Planned
from lxcfleet.patch.rollout import gating
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.policies.rollout import GateLive, ProfileRollout, RolloutSettings, Share

POLICY = RolloutSettings(Share(25, percent=True), Share(1), 0.0, 10.0, ("*",), gate_live=GateLive.ALL)


def planned(name: str, crew: str) -> Planned:
    """A limit for a container that runs; ``crew``: its profile."""
    former = Spec(name, first_id=1879048192, created="2026-01-01T00:00:00Z", profile=crew or None)
    running = SimpleNamespace(payload=SimpleNamespace(frozen=False))
    container = cast(Any, SimpleNamespace(name=name, running=running))
    return Planned(container, former, replace(former, pids=100))


def chosen(crews: Mapping[str, str], canaries: Mapping[str, ProfileRollout]) -> set[str]:
    """The names of those that are changed in waves."""

    def own(spec: Spec | None) -> ProfileRollout:
        return canaries.get((spec and spec.profile) or "", ProfileRollout())

    def crew(spec: Spec | None) -> str | None:
        return None if own(spec).canaries is None or spec is None else spec.profile

    found = gating.choose([planned(name, profile) for name, profile in crews.items()], POLICY, own, crew)
    return {each.container.name for each in found}


@pytest.mark.parametrize("share", [Share(1), Share(2)])
def test_a_crew_is_as_large_as_it_is_also_if_another_one_has_as_many_canaries(share: Share) -> None:
    """One container of each of two profiles, of which one is to go first: both would be canaries, and nobody follows."""
    own = {name: ProfileRollout(canaries=share) for name in ("front", "back")}
    assert chosen({"a": "front", "b": "back"}, own) == set()
    assert chosen({"a": "front", "b": ""}, own) == set()
    crews = {"a": "front", "b": "front", "c": "front", "d": "back"}
    assert chosen(crews, own) == {"a", "b", "c"}
    assert chosen({**crews, "e": "", "f": ""}, own) == {"a", "b", "c", "e", "f"}


def test_what_halts_is_taken_back_of_a_small_crew_too() -> None:
    own = {"front": ProfileRollout(canaries=Share(1), auto_revert=True), "back": ProfileRollout(canaries=Share(1))}
    assert chosen({"a": "front", "b": "back"}, own) == {"a"}
