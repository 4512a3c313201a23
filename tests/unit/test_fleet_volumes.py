"""Volumes in a fleet file: how they are read, planned, kept and exported."""

from __future__ import annotations

from typing import Any

import pytest

from lxcfleet.errors import Broken, Conflict, InvalidInput
from lxcfleet.fleets import applied as records
from lxcfleet.fleets import export
from lxcfleet.fleets.applied import Applied
from lxcfleet.fleets.plan import FleetPlan, OnHost, plan
from lxcfleet.spec.container.volumes import Volume
from lxcfleet.spec.files import fleet_file
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.settings import Config

NAMES = "a name has 1 to 63 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen"
TIME = "2026-01-01T00:00:00Z"


def read(volumes: str) -> FleetFile:
    return fleet_file.parse(Sources(f"lxcfleet: 1\nfleet: shop\nvolumes:\n{volumes}\n", "f"), Config())


def planned(volumes: str, before: Applied | None = None, *, others: tuple[Applied, ...] = (), **present: Any) -> FleetPlan:
    return plan(read(volumes), before, OnHost({}, others, present or {}), Config(), time=TIME)


def after(made: FleetPlan, **present: Volume) -> dict[str, Any]:
    """The volumes once a plan is carried out."""
    return {**present, **{each.name: Volume(each.name, **each.values) for each in made.volumes}}


def test_a_missing_volume_is_made_and_then_nothing() -> None:
    made = planned("  up: {size: 1G, labels: {tier: db}}\n  plain:")
    assert [(each.name, each.new, dict(each.values)) for each in made.volumes] == [
        ("up", True, {"size": 1 << 30, "labels": {"tier": "db"}}), ("plain", True, {"size": 0, "labels": {}}),
    ]  # fmt: skip
    assert made.changed
    kept = records.from_json(records.to_json(made.after))
    assert kept == made.after
    again = planned("  up: {size: 1024M, labels: {tier: db}}\n  plain:", kept, **after(made))
    assert not again.changed
    assert again.after.same(kept)


def test_a_volume_that_exists_is_meant_and_only_what_the_file_says_changes() -> None:
    there = Volume("up", 5 << 30, {"tier": "db"})
    assert not planned("  up: {}", up=there).changed
    (change,) = planned("  up: {size: 6G}", up=there).volumes
    assert (change.new, change.values, change.differs) == (
        False, {"size": 6 << 30, "labels": {"tier": "db"}}, {"size": ("5G", "6G")},
    )  # fmt: skip
    before = planned("  up: {size: 5G}", up=there).after
    (change,) = planned("  up:", before, up=there).volumes
    assert change.values["size"] == 0, "the file said it until now"


def test_a_volume_that_the_file_has_no_more_stays() -> None:
    before = planned("  up:").after
    gone = planned("  {}", before, up=Volume("up"))
    assert (gone.changed, gone.after.volumes) == (False, {})


def test_a_record_of_a_former_version_has_no_volumes() -> None:
    text = records.to_json(planned("  {}").after)
    assert '"volumes"' not in text
    assert not records.from_json(text).volumes


def test_two_fleets_cannot_both_have_a_volume() -> None:
    other = Applied("api", "api.yaml", TIME, volumes={"up": {}})
    with pytest.raises(Conflict, match="two fleets") as caught:
        planned("  up:", others=(other,))
    assert "f:4: the volume up stands in the file of the fleet api, too (api.yaml)" in caught.value.why


def test_a_broken_volume_is_in_the_way() -> None:
    with pytest.raises(InvalidInput) as caught:
        planned("  up:", up=Broken("the volume up is broken: its record is gone"))
    assert caught.value.why == "f:4: the volume up is broken: its record is gone"


def test_a_plan_with_another_size_has_another_id() -> None:
    assert planned("  up: {size: 1G}").id != planned("  up: {size: 2G}").id


def test_mistakes_in_volumes_are_told_with_their_lines() -> None:
    with pytest.raises(InvalidInput) as caught:
        read('  up: {size: lots, colour: red}\n  tmpfs: {}\n  "../x": {}\n  y: []\n  z: {labels: {a: 1}, first_id: 65536}')
    found = [(line.partition(": ")[0], line.rpartition(": ")[2]) for line in caught.value.why.splitlines()]
    assert found == [
        ("f:4", "'lots' is not a size"),
        ("f:4", "hosts, labels, size"),
        ("f:5", "tmpfs:/PATH means a file system in memory"),
        ("f:6", NAMES),
        ("f:7", "expected a mapping, found a list"),
        ("f:8", "expected text (quote numbers and words such as yes and no)"),
        ("f:8", "hosts, labels, size"),
    ]
    many = "\n".join(f"  v{number}:" for number in range(1001))
    with pytest.raises(InvalidInput, match="") as caught:
        read(many)
    assert "1001 volumes" in caught.value.why


def test_hosts_limit_a_volume() -> None:
    file = read("  up: {hosts: [web*]}\n  all:")
    assert [*file.on("db1").volumes] == ["all"]
    assert [*file.on("web1").volumes] == ["up", "all"]


def test_an_exported_file_has_the_volumes_and_changes_nothing() -> None:
    there = {"up": Volume("up", 5 << 30, {"tier": "on"}), "plain": Volume("plain"), "odd": Volume("odd", (5 << 20) + 1)}
    text = export.text("shop", [], None, Config(), [*there.values()])
    made = plan(fleet_file.parse(Sources(text, "f"), Config()), None, OnHost({}, volumes=there), Config(), time=TIME)
    assert not made.changed
    assert [*made.after.volumes] == [*there]
