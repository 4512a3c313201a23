"""Which containers are found by which names, as files that the name server reads."""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import replace
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.membership import Membership
from lxcfleet.paths import Paths
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import NetworkMode

from .network_parts import Names, context_of, own_paths, run


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return own_paths(tmp_path)


CHECK = HealthCheck(CheckKind.TCP, port=80)


def running(name: str = "web1", *, frozen: bool = False, check: HealthCheck | None = CHECK) -> Container:
    own = IPv4Interface("10.0.0.2/24")
    spec = Spec(name, labels={"role": "web"}, network=NetworkMode.BRIDGE, address=own, health=check)
    container = Container(name, spec)
    freeze(container, frozen)
    return container


def freeze(container: Container, frozen: bool) -> None:
    """Freeze or thaw it without the daemon."""
    run(container, frozen=frozen)


def parts(paths: Paths, *containers: Container) -> tuple[Discovery, Membership]:
    own = Names(context_of(paths, *containers))
    return own.discovery, own.membership


def names(paths: Paths, name: str = "web1") -> list[str]:
    file = paths.hosts / name
    return file.read_text().split()[1:] if file.exists() else []


ALONE = ["web1.fleet"]
BOTH = ["web1.fleet", "web.role.fleet"]


def test_only_healthy_containers_stand_for_their_groups(paths: Paths) -> None:
    web = running()
    found, members = parts(paths, web)
    found.publish(web)
    assert names(paths) == BOTH
    found.set_member(web, False)
    assert names(paths) == ALONE
    found.set_frozen(web, True)
    found.set_member(web, True)
    assert (names(paths), members.is_member("web1")) == (ALONE, False)
    found.set_frozen(web, False)
    assert names(paths) == BOTH


def test_a_membership_that_was_set_holds_over_restarts(paths: Paths) -> None:
    web = running()
    found, _ = parts(paths, web)
    found.set_member(web, False)
    assert names(paths) == []  # the daemon has not found it yet
    found.publish(web)
    assert names(paths) == ALONE
    found.withdraw("web1")
    found.publish(web)
    assert names(paths) == ALONE
    found.forget("web1")
    found.publish(web)
    assert names(paths) == BOTH


@pytest.mark.parametrize(("frozen", "fit", "left"), [(False, False, ALONE), (False, True, BOTH), (True, True, ALONE)])
def test_a_new_daemon_takes_over_the_members_of_a_group(paths: Paths, frozen: bool, fit: bool, left: list[str]) -> None:
    web = running(frozen=frozen)
    old, _ = parts(paths, web)
    old.set_frozen(web, frozen)
    old.set_member(web, fit)
    old.publish(web)
    (paths.hosts / "gone").write_text("10.0.0.3 gone.fleet\n")
    new, members = parts(paths, web)
    new.settle()
    assert (names(paths), names(paths, "gone")) == (left, [])
    assert members.is_member("web1") == (fit and not frozen)


def test_a_container_that_others_freeze_or_thaw_is_noticed(paths: Paths) -> None:
    web = running()
    found, members = parts(paths, web)
    found.publish(web)
    freeze(web, True)
    found.look()
    assert (names(paths), members.members()) == (ALONE, [])
    freeze(web, False)
    web.busy = "freeze"  # we are about to freeze it, and it has left before
    found.look()
    assert names(paths) == ALONE
    web.busy = None
    found.look()
    assert (names(paths), members.members()) == (BOTH, [web])


def test_nobody_looks_whether_one_is_frozen_that_stands_for_no_others(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hundred of them, that was a tenth of what the daemon takes at rest."""
    web, lone = running("web1"), running("lone")
    assert lone.spec is not None
    lone.spec = replace(lone.spec, labels={}, address=IPv4Interface("10.0.0.3/24"))
    found, _ = parts(paths, web, lone)
    for each in (web, lone):
        found.publish(each)
    looked: list[str] = []
    monkeypatch.setattr(found, "look_at", lambda container: looked.append(container.name))
    found.look()
    lone.spec = replace(lone.spec, aliases=("one",))
    found.look()
    assert looked == ["web1", "lone", "web1"]


def test_a_container_that_ended_frozen_begins_as_a_member(paths: Paths) -> None:
    web = running(frozen=True)
    found, _ = parts(paths, web)
    found.settle()
    assert names(paths) == ALONE
    found.withdraw("web1")
    found.ended("web1")
    freeze(web, False)
    found.publish(web)
    assert names(paths) == BOTH


def test_a_container_that_was_thawed_without_a_daemon_is_a_member(paths: Paths) -> None:
    web = running(frozen=True, check=None)
    parts(paths, web)[0].settle()
    assert names(paths) == ALONE
    freeze(web, False)
    parts(paths, web)[0].settle()
    assert names(paths) == BOTH


def test_half_a_file_is_never_there(paths: Paths) -> None:
    web = running()
    found, _ = parts(paths, web)
    found.publish(web)
    before = (paths.hosts / "web1").stat().st_ino
    found.set_member(web, False)
    assert (paths.hosts / "web1").stat().st_ino != before
    assert sorted(p.name for p in paths.run.iterdir()) == ["hosts"]


def test_a_damaged_file_of_names_is_written_anew(paths: Paths) -> None:
    """A byte that is not ASCII kept the daemon from starting."""
    web = running()
    found, _ = parts(paths, web)
    paths.hosts.mkdir(parents=True, exist_ok=True)
    (paths.hosts / "web1").write_bytes(b"10.0.0.2 \xff\xfe\n")
    found.settle()
    assert names(paths) == BOTH


def test_a_container_that_may_run_keeps_its_name(paths: Paths) -> None:
    web, db = Container("web1", Spec("web1"), unseen=True), Container("db", Spec("db"))
    found, _ = parts(paths, web, db)
    paths.hosts.mkdir(parents=True, exist_ok=True)
    for name in ("web1", "db"):
        (paths.hosts / name).write_text(f"10.0.0.2 {name}.fleet\n")
    found.settle()
    assert (names(paths), names(paths, "db")) == (ALONE, [])


def test_an_ipv6_address_is_found_once_it_answers(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lxcfleet.network.discovery.TENTATIVE_SECONDS", 0.0)
    web = running()
    assert web.spec is not None
    web.spec = replace(web.spec, address6=IPv6Interface("fd00::2/64"))
    flags = ["c0"]
    table = "fd000000000000000000000000000002 02 40 00 {} eth0\n"
    monkeypatch.setattr("lxcfleet.host.net.dhcp.addresses6", lambda _: table.format(flags[0]))

    def addresses() -> list[str]:
        return [line.split()[0] for line in (paths.hosts / "web1").read_text().splitlines() if not line.startswith("#")]

    async def play() -> None:
        found, _ = parts(paths, web)
        found.publish(web)
        assert addresses() == ["10.0.0.2"]
        await asyncio.sleep(0.01)
        assert addresses() == ["10.0.0.2"]
        flags[0] = "80"
        await asyncio.sleep(0.01)
        assert addresses() == ["10.0.0.2", "fd00::2"]

    asyncio.run(play())


@pytest.mark.parametrize("what", ["directory", "fifo", "link"])
def test_another_thing_in_the_place_of_a_file_of_names_keeps_nobody_from_starting(paths: Paths, what: str) -> None:
    web = running()
    paths.hosts.mkdir(parents=True, exist_ok=True)
    for name in ("web1", "gone"):
        place = paths.hosts / name
        if what == "directory":
            (place / "below").mkdir(parents=True)
        elif what == "fifo":
            os.mkfifo(place)
        else:
            place.symlink_to("/nowhere")
    parts(paths, web)[0].settle()
    assert "web1.fleet" in names(paths)
    assert [file.name for file in paths.hosts.iterdir()] == ["web1"]


@pytest.mark.parametrize("what", ["directory", "fifo", "link", "file"])
def test_another_thing_in_the_place_of_half_a_file_is_in_nobodys_way(paths: Paths, tmp_path: Path, what: str) -> None:
    place, elsewhere = paths.run / "hosts.web1", tmp_path / "elsewhere"
    if what == "directory":
        (place / "below").mkdir(parents=True)
    elif what == "fifo":
        os.mkfifo(place)
        reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)  # else a mistake here would wait for ever
    elif what == "link":
        place.symlink_to(elsewhere)
    else:
        place.write_text("10.0.0.9 half")
    parts(paths, running())[0].settle()
    if what == "fifo":
        os.close(reader)
    assert names(paths) == BOTH
    assert (paths.hosts / "web1").is_file()
    assert not (paths.hosts / "web1").is_symlink()
    assert not elsewhere.exists()


def test_a_name_that_cannot_be_written_keeps_neither_the_daemon_nor_others_from_starting(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def full(old: Path, new: Path) -> None:
        if new.name == "web1":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(old, new)

    monkeypatch.setattr(os, "rename", full)
    parts(paths, running("web1"), running("web2"))[0].settle()
    assert (names(paths, "web1"), names(paths, "web2")) == ([], ["web2.fleet", "web.role.fleet"])


def test_other_settings_reach_all_names_but_those_that_can_not_be_written(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one ended a reload."""
    context = context_of(paths, *(running(name) for name in ("web1", "web2", "web3")))
    own = Names(context)
    own.discovery.settle()
    context.settings = replace(context.settings, domain="other")
    rename = os.rename

    def full(old: Path, new: Path) -> None:
        if new.name == "web2":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(old, new)

    monkeypatch.setattr(os, "rename", full)
    own.discovery.write_all()
    found = [names(paths, name)[0] for name in ("web1", "web2", "web3")]
    assert found == ["web1.other", "web2.fleet", "web3.other"]
