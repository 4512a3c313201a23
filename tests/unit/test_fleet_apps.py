"""Apps in a fleet file: how they are read, where groups have them, planned, kept and exported; and which releases are old."""

from __future__ import annotations

from typing import Any

import pytest

from lxcfleet.errors import InvalidInput
from lxcfleet.fleets import applied as records
from lxcfleet.fleets import apps as of_files
from lxcfleet.fleets import export
from lxcfleet.fleets.applied import Applied
from lxcfleet.fleets.plan import FleetPlan, OnHost, plan
from lxcfleet.spec.container.apps import AppForm, Release, outdated
from lxcfleet.spec.files import fleet_file
from lxcfleet.spec.files.fleet_file import FleetFile
from lxcfleet.spec.files.fleet_sources import Sources
from lxcfleet.spec.files.settings import Config

TIME = "2026-01-01T00:00:00Z"
WEB = "groups:\n  web: {count: 2, command: [/bin/true], app: shop@1.4}\n"


def read(apps: str, groups: str = WEB) -> FleetFile:
    return fleet_file.parse(Sources(f"lxcfleet: 1\nfleet: shop\napps:\n{apps}\n{groups}", "f"), Config())


def sealed(*versions: str, **more: Any) -> dict[str, Release | None]:
    return {version: Release("shop", version, **more) for version in versions}


def planned(apps: str, before: Applied | None = None, groups: str = WEB, **present: dict[str, Release | None]) -> FleetPlan:
    return plan(read(apps, groups), before, OnHost({}, apps=present or {"shop": sealed("1.4", "1.5")}), Config(), time=TIME)


def app_of(file: FleetFile) -> str:
    return str(file.groups["web"].said["app"])


def test_a_group_has_its_app_where_the_section_says_unless_it_says_so_itself() -> None:
    assert app_of(read("  shop: {mount: /srv/shop}")) == "shop@1.4:/srv/shop"
    assert app_of(read("  shop:")) == "shop@1.4"
    assert app_of(read("  other: {mount: /srv/other}")) == "shop@1.4"
    for own in ('"shop@1.4:/srv/mine"', "{release: shop@1.4, target: /srv/mine}"):
        assert app_of(read("  shop: {mount: /srv/shop}", WEB.replace("shop@1.4", own))) == "shop@1.4:/srv/mine"
    member = WEB.replace("shop@1.4}", "shop@1.4, members: {web2: {app: shop@1.5}}}")
    assert str(read("  shop: {mount: /srv/shop}", member).groups["web"].of("web2")["app"]) == "shop@1.5:/srv/shop"


def test_a_layer_is_where_the_hosts_files_are_and_hides_what_both_the_release_and_the_file_allow() -> None:
    layer = "  shop: {form: layer, covers: [/etc/shop]}"
    assert app_of(read(layer)) == "shop@1.4:/"
    assert planned(layer, shop=sealed("1.4", form=AppForm.LAYER, covers=("/etc/shop/a",))).changed
    for apps, release, told in (
        (layer, sealed("1.4"), "shop@1.4 was sealed with the form mount, and the file says layer"),
        ("  shop:", sealed("1.4", form=AppForm.LAYER), "shop@1.4 was sealed with the form layer, and the file says mount"),
        (layer, sealed("1.4", form=AppForm.LAYER, covers=("/etc/shop/a", "/etc/sh")), "shop@1.4 may hide /etc/sh, which"),
    ):
        with pytest.raises(InvalidInput) as caught:
            planned(apps, shop=release)
        assert told in caught.value.why
    for apps, app, told in (
        (layer, "shop@1.4:/srv/x", "shop@1.4:/srv/x is no layer"), ("  shop:", "shop@1.4:/", "shop@1.4:/ is a layer"),
        ("  shop: {form: layer, mount: /srv/x}", "shop@1.4", "mount: is for the form mount"),
        ("  shop: {covers: [/etc/x]}", "shop@1.4", "covers: is for the form layer"),
        ("  shop: {form: layer, covers: [/usr/bin]}", "shop@1.4", "a layer can't cover all of /usr/bin"),
        ("  shop: {form: both}", "shop@1.4", "'both' is none of mount, layer"),
    ):
        with pytest.raises(InvalidInput) as caught:
            read(apps, WEB.replace("shop@1.4", f'"{app}"'))
        assert told in caught.value.why


def test_what_is_kept_is_a_change_and_then_nothing() -> None:
    made = planned('  shop: {keep: 5, releases: ["1.5"]}')
    assert [(each.name, each.change, dict(each.differs)) for each in made.apps] == [
        ("shop", "create", {"keep": ("none", "5"), "releases": ("none", "1.5")})
    ]
    before = records.from_json(records.to_json(made.after))
    assert before == made.after
    assert not planned('  shop: {releases: ["1.5"], keep: 5}', before).apps
    other = planned("  shop: {keep: 3}", before)
    assert [(each.change, dict(each.differs)) for each in other.apps] == [
        ("live", {"keep": ("5", "3"), "releases": ("1.5", "none")})
    ]
    assert other.id != planned("  shop: {keep: 4}", before).id
    assert [each.change for each in planned("  {}", before).apps] == ["remove"]
    assert not planned("  shop: {mount: /srv/shop}").apps, "where it is mounted is a change of containers"


def test_releases_that_the_host_does_not_have_are_all_told_with_their_lines() -> None:
    with pytest.raises(InvalidInput) as caught:
        planned('  shop: {releases: ["1.4", "2"]}', shop=sealed("1.3"))
    assert caught.value.why.splitlines() == [
        f"f:{line}: {where}: {release} is not on this host: lxcfleet app add shop DIR --version {release.partition('@')[2]}"
        for line, where, release in (
            (4, "apps: shop", "shop@1.4"), (4, "apps: shop", "shop@2"), (6, "groups: web: app", "shop@1.4"),
        )
    ]  # fmt: skip
    assert planned("  other:", shop=sealed("1.3")).changed, "an app that the section does not have is waited for"


def test_mistakes_in_apps_are_told_with_their_lines() -> None:
    with pytest.raises(InvalidInput) as caught:
        read(
            '  shop: {keep: -1, colour: red, mount: /usr}\n  "../x": {}\n  y: []\n  z: {releases: [1.5]}\n'
            '  w: {releases: ["/"]}'
        )
    assert {line.partition(": ")[0] for line in caught.value.why.splitlines()} == {"f:4", "f:5", "f:6", "f:7", "f:8"}, (
        caught.value.why
    )
    words = ("keep", "colour", "nothing can be mounted", "can't be an app's name", "'/'")
    assert all(word in caught.value.why for word in words)
    with pytest.raises(InvalidInput) as caught:
        read("\n".join(f"  v{number}:" for number in range(1001)))
    assert "1001 apps" in caught.value.why


def test_several_files_keep_what_any_of_them_wants() -> None:
    def fleet(name: str, **shop: Any) -> Applied:
        return Applied(name, f"{name}.yaml", TIME, apps={"shop": shop})

    one, two, all_ = fleet("one", keep=2, releases=("1",)), fleet("two", keep=5), fleet("all", keep=0)
    several: tuple[list[Applied], ...] = ([], [fleet("none")], [one], [one, two], [two, all_])
    assert [of_files.kept(each, "shop") for each in several] == [None, None, 2, 5, 0]
    assert of_files.wanted([one, two]) == {"shop@1"}


def test_an_exported_file_has_the_apps_and_changes_nothing() -> None:
    before = planned('  shop: {keep: 5, releases: ["1.5"], mount: /srv/shop}', groups="").after
    text = export.text("shop", [], before, Config())
    file = fleet_file.parse(Sources(text, "f"), Config())
    made = plan(file, before, OnHost({}, apps={"shop": sealed("1.5")}), Config(), time=TIME)
    assert not made.changed
    assert made.after.apps == before.apps


def test_hosts_limit_an_app() -> None:
    assert [*read("  shop: {hosts: [web*]}\n  all:").on("db1").apps] == ["all"]


def test_old_releases_are_those_that_nobody_has_and_that_are_not_the_ones_before() -> None:
    versions = ["1", "2", "3", "4", "5", "6"]
    assert outdated("shop", versions, 2, (), ()) == ["1", "2", "3", "4"]
    assert outdated("shop", versions, 1, {"4"}, {"shop@1", "other@2"}) == ["2", "5"]
    assert outdated("shop", versions, 9, (), ()) == []
