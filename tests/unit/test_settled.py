"""Which containers are looked at without an allowance for a clock that was set back."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from lxcfleet.base.stack import Stack
from lxcfleet.host.packages.sightings import Sighting
from lxcfleet.patch.stale.scan import Target
from lxcfleet.patch.stale.served import SLACK_SECONDS
from lxcfleet.patch.stale.settled import Settled
from lxcfleet.patch.stale.versions import Versions
from lxcfleet.paths import Paths

BEGAN = {"a": 10.0, "b": 20.0}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The containers that were asked for; those that began before 15 are settled."""
    names: list[str] = []

    def is_settled(_: Versions, name: str, __: float, began: float) -> bool:
        names.append(name)
        return began < 15

    monkeypatch.setattr(Versions, "is_settled", is_settled)
    return names


def starts(settled: Settled, sightings: dict[str, Sighting] | None, began: dict[str, float] = BEGAN) -> dict[str, float]:
    targets = [Target(name, 1, "/none", cast(Stack, None), since=1000.0) for name in "ab"]
    return {target.name: target.since for target in settled.without_slack(targets, began, sightings)}


def test_each_run_is_judged_once_until_a_package_changes(tmp_path: Path, asked: list[str]) -> None:
    settled = Settled(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
    sightings = {"libc6": Sighting(1, 1)}
    for _ in range(2):
        assert starts(settled, sightings) == {"a": 1000 + SLACK_SECONDS, "b": 1000}
    assert asked == ["a", "b"]
    assert starts(settled, sightings, {**BEGAN, "b": 12.0})["b"] == 1000 + SLACK_SECONDS, "it was restarted"
    assert asked == ["a", "b", "b"]
    starts(settled, {"libc6": Sighting(2, 30)})
    assert asked == ["a", "b", "b", "a", "b"]


def test_while_it_is_not_known_which_packages_changed_all_have_the_allowance(tmp_path: Path, asked: list[str]) -> None:
    settled = Settled(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path))
    assert starts(settled, None) == {"a": 1000, "b": 1000}
    assert starts(settled, {}, {}) == {"a": 1000, "b": 1000}, "they ended meanwhile"
    assert asked == []
