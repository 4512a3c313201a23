"""Changing specs of many containers: all of them, or none."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers import store
from lxcfleet.containers.container import Container
from lxcfleet.containers.lxc_config import Platform
from lxcfleet.containers.order.dependencies import Dependencies
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests import vain
from lxcfleet.containers.requests.changing import Changing, Planned, like, to_restart
from lxcfleet.containers.requests.commands import check_user
from lxcfleet.errors import Broken, Busy, FleetError, HostError, InvalidInput, Unsupported, WrongState
from lxcfleet.host.kernel import quota, tree
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.apps import parse_app
from lxcfleet.spec.container.assignments import parse_all
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.profiles import Profile
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.reading.swap import NO_LIMIT
from lxcfleet.spec.reading.terms import Init

NAMES = [f"web{number}" for number in range(1, 6)]


class Network:
    """A network without a bridge."""

    bridge = "lxcfleet0"

    async def check_new(self, count: int) -> None:
        raise AssertionError

    async def check_changed(self, changed: Sequence[tuple[Spec, Spec]]) -> None:
        assert changed

    def give_back(self, address: None) -> None:
        assert address is None


class World:
    """Containers on disk, none of which runs."""

    def __init__(self, top: Path) -> None:
        nobody: Any = None
        network: Any = Network()
        mask: Any = type("Mask", (), {"distrust": lambda _: None})()
        self.paths = Paths(lxc=top, run=top, etc=top)
        platform = Platform(True, frozenset({"memory", "cpu", "pids"}), False, False, "lxcfleet0", "", top)
        bus = Bus()
        self.registry = Registry(self.paths, nobody, bus)
        self.specs = Specs(self.paths, platform, nobody, network, bus, 4)
        reconciler = Reconciler(self.registry, nobody, self.specs, nobody, 10.0)
        dependencies = Dependencies(self.registry, nobody, bool)
        self.changing = Changing(self.paths, reconciler, self.specs, mask, network, bus, dependencies, self.unfit)
        for number, name in enumerate(NAMES):
            spec = Spec(name, Init.APP, ("true",), first_id=1879048192 + 65536 * number, created="2026-01-01T00:00:00Z")
            self.paths.container(name).directory.mkdir()
            self.paths.container(name).spec.write_text(store.render(spec))
            self.registry.add(Container(name, spec))

    async def unfit(self, names: Iterable[str], to: int) -> dict[str, list[str]]:
        """Their own packages break on generation 8."""
        return {name: [f"nginx needs libssl3, not {to}"] * 4 for name in names if to == 8}

    def on_disk(self) -> dict[str, str]:
        return {name: self.paths.container(name).spec.read_text() for name in NAMES}

    def set(self, *texts: str) -> list[Planned]:
        async def change() -> list[Planned]:
            planned = await self.changing.plan(list(self.registry), parse_all(texts), Config())
            await self.changing.carry_out(planned)
            return planned

        return asyncio.run(change())

    def refused(self, *texts: str) -> FleetError:
        """The error for these assignments; no container may have changed."""
        before, specs = self.on_disk(), {c.name: c.wanted for c in self.registry}
        with pytest.raises(FleetError) as raised:
            self.set(*texts)
        assert self.on_disk() == before
        assert {c.name: c.wanted for c in self.registry} == specs
        assert not any(c.busy for c in self.registry if c.name != "web4")
        assert not [path for path in self.paths.lxc.rglob(".*") if path.name != ".lxcfleet.yaml.former"]
        return raised.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_limits_that_this_kernel_can_t_keep_are_refused(world: World) -> None:
    """The platform of this world has none of the files."""
    assert "memory.swap.max" in str(world.refused("swap=0", "memory=1G").why)
    assert "no weights for block devices" in str(world.refused("io_weight=200").why)
    assert "does not limit what a cgroup reads" in str(world.refused("io=read=1M").why)
    assert [each.spec.cpu_weight for each in world.set("cpu_weight=50", "swap=max")] == [50] * 5
    assert "can't both be set" in str(world.refused("lxc.cgroup2.cpu.weight=7").why)


def test_a_disk_that_has_gone_is_in_the_way_of_no_other_change(world: World) -> None:
    disks = {"sda": ["8:0"], "sdb": ["8:16"]}
    platform = world.specs._platform
    world.specs._platform = replace(
        platform, controllers=platform.controllers | {"io"}, limit_files=frozenset({"io.max"}),
        disks=lambda name: disks.get(name, ()),
    )  # fmt: skip
    world.set("io.sdb=read=1M", "io.sda=read=1M")
    del disks["sdb"]
    assert {each.spec.memory for each in world.set("memory=2G")} == {2 << 30}
    assert {each.spec.io["sda"].read for each in world.set("io.sda=read=2M")} == {2 << 20}
    assert "no disk sdc" in str(world.refused("io.sdc=read=1M").why)
    assert [[*each.spec.io] for each in world.set("io.sdb=")] == [["sda"]] * 5
    assert "no disk sdb" in str(world.refused("io.sdb=read=1M").why)


def test_a_limit_that_the_kernel_does_not_keep_any_more_is_in_the_way_of_no_other_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has booted another kernel, or its file system is mounted without quotas."""
    platform = world.specs._platform
    files = frozenset({"memory.swap.max", "io.weight", "io.max"})
    world.specs._platform = replace(
        platform, controllers=platform.controllers | {"io"}, limit_files=files, disks=lambda _: ["8:0"]
    )  # fmt: skip
    monkeypatch.setattr(quota, "check", lambda _: None)
    world.set("memory=1G", "swap=1G", "io_weight=50", "io.sda=read=1M", "disk=1G", "cpus=1")

    def refuse(_: object) -> None:
        raise Unsupported("no quotas")

    monkeypatch.setattr(quota, "check", refuse)
    world.specs._platform = replace(platform, controllers=frozenset({"pids"}), limit_files=frozenset(), disks=lambda _: ())
    assert {each.spec.pids for each in world.set("pids=77")} == {77}
    for asked, why in (("swap=2G", "no memory.swap.max"), ("io_weight=7", "no weights"), ("memory=2G", "controller memory"),
                       ("cpus=2", "controller cpu"), ("io.sda=read=2M", "does not limit")):  # fmt: skip
        assert why in str(world.refused(asked).why)
    assert "no quotas" in world.refused("disk=2G").why
    assert {each.spec.swap for each in world.set("swap=max", "io_weight=", "disk=0")} == {NO_LIMIT}


def test_a_limit_that_the_host_is_too_small_for_is_told_and_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    small = vain.HostSize(23 << 30, 2, 100 << 30)
    looks: list[object] = []

    def look(paths: object) -> vain.HostSize:
        looks.append(paths)
        return small

    monkeypatch.setattr(vain, "host", look)
    platform = world.specs._platform
    world.specs._platform = replace(platform, controllers=platform.controllers | {"cpu"})
    told = {note for each in world.set("memory=900G", "cpus=64") for note in each.notes}
    assert len(looks) == 1, "one for each container took a tenth of the time of a change of limits"
    assert told == {
        "its limit memory=900G has no effect: the host has 23.0 GiB of memory",
        "its limit cpus=64 has no effect: the host has 2 processors",
    }
    assert [each.notes for each in world.set("pids=7")] == [()] * 5, "it was told before"
    specs = [Spec("web", memory=24 << 30), Spec("db", memory=24 << 30, cpus=2), Spec("ok", memory=23 << 30)]
    assert vain.of_all(specs, small) == ["web, db: limit memory=24G has no effect: the host has 23.0 GiB of memory"]
    profiles = {"big": Profile({"disk": 1 << 40})}
    assert vain.of_all(vain.asked_for(Config(profiles=profiles)), small) == [
        "the profile big: limit disk=1T has no effect: the file system with the deltas has 100.0 GiB"
    ]
    assert vain.notes(specs[0], vain.HostSize(0, 0, 0)) == ()


def test_the_user_of_a_new_container_is_one_that_it_has(tmp_path: Path) -> None:
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n")
    (tmp_path / "group").write_text("adm:x:4:\n")
    spec = Spec("web", init=Init.APP, command=("x",))
    for user in ("www-data", "www-data:adm", "7", "7:8", "root:4", None):
        check_user(replace(spec, user=user), tmp_path)
    for user, why in (("nosuch", "no user nosuch"), ("root:nosuch", "no group nosuch")):
        with pytest.raises(InvalidInput) as caught:
            check_user(replace(spec, user=user), tmp_path)
        assert why in caught.value.why
        check_user(replace(spec, user=user, app=parse_app("shop@1:/")), tmp_path)


def test_a_container_that_exists_may_have_users_of_its_own(tmp_path: Path, world: World) -> None:
    """The user was looked for by nobody before the restart: that failed with the first container of the rollout."""
    (tmp_path / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    own = tmp_path / "delta/etc"
    own.mkdir(parents=True)
    (own / "passwd").write_text("app:x:1000:1000::/:/bin/sh\n")
    spec = Spec("web", init=Init.APP, command=("x",), user="app")
    check_user(spec, tmp_path, own.parent)
    with pytest.raises(InvalidInput) as caught:
        check_user(replace(spec, user="nosuch"), tmp_path, own.parent)
    assert caught.value.why == "the host has no user nosuch, nor has the container"
    (own / "passwd").unlink()
    (own / "passwd").symlink_to("/etc/shadow")
    check_user(replace(spec, user="nosuch"), tmp_path, own.parent)  # nobody knows what is there
    with pytest.raises(InvalidInput, match="no-such-user"):
        world.set("user=no-such-user")
    assert world.set("user=root")


def test_all_containers_get_the_assigned_values(world: World) -> None:
    planned = world.set("labels.tier=front", "environment.MODE=night")
    assert [each.changed for each in planned] == [True] * 5
    assert to_restart(planned) == []  # none runs
    for name in NAMES:
        on_disk = store.load(world.paths, name)
        assert on_disk == world.registry[name].spec
        assert isinstance(on_disk, Spec)
        assert (on_disk.labels, on_disk.environment) == ({"tier": "front"}, {"MODE": "night"})
        assert "init.cmd" in world.paths.container(name).config.read_text()
        assert not world.paths.container(name).former_spec.exists()


def test_what_a_change_that_failed_left_on_disk_is_put_in_force_by_the_next_try(world: World) -> None:
    """`set` said "unchanged", and the run went on without it: a disk that took nothing more had kept the new spec."""
    container = world.registry["web1"]
    running: Any = SimpleNamespace(payload=SimpleNamespace(frozen=False, memory=None))
    assert container.spec is not None
    container.running = running
    left = replace(container.spec, labels={"tier": "front"})
    world.paths.container("web1").spec.write_text(store.render(left))
    container.want(left)
    first = world.set("labels.tier=front")[0]
    assert first.result("changed").status == "changed"
    assert first.result("changed").differs == {"labels": ("none", "tier=front")}
    assert container.spec == container.wanted == left
    assert world.set("labels.tier=back")[0].late is None


@pytest.mark.parametrize("failing", range(1, 11))
@pytest.mark.parametrize("act", ["stage", "put"])
def test_a_disk_that_is_full_at_any_write_leaves_all_as_they_were(
    world: World, act: str, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting the former specs back takes no room: every later write fails as well."""
    name = "put" if act == "put" else "_write_all"  # each file that is staged comes by there
    do, count = getattr(tree, name), 0

    def full(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count >= failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        do(*arguments)

    def write(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tree, name, full)
    monkeypatch.setattr(tree, "write", write)
    error = world.refused("labels.tier=front")
    assert isinstance(error, HostError)
    assert "No space left" in error.why


def test_a_configuration_that_stays_as_it_is_is_not_written_again(world: World) -> None:
    world.set("environment.MODE=night")
    before = {name: world.paths.container(name).config.stat().st_ino for name in NAMES}
    world.set("labels.tier=front")
    assert {name: world.paths.container(name).config.stat().st_ino for name in NAMES} == before
    world.paths.container("web2").config.write_text("somebody has edited it")
    world.set("labels.tier=back")
    assert "somebody" not in world.paths.container("web2").config.read_text()
    assert not [*world.paths.lxc.rglob(".*.new")]


def test_a_broken_and_a_busy_container_are_told_together(world: World) -> None:
    broken = world.registry["web2"]
    broken.spec, broken.problem = None, Broken("web2 is broken: its spec can't be used", why="whatever: unknown key")
    world.registry["web4"].busy = "stop"
    error = world.refused("labels.tier=front")
    assert "2 of 5" in error.message
    assert "web2: web2 is broken" in error.why
    assert "web4: web4 is busy: stop" in error.why


def test_the_same_mistake_in_all_containers_is_told_once(world: World) -> None:
    error = world.refused("init=system")
    assert isinstance(error, InvalidInput)
    assert error.why.startswith("web1, web2, web3, web4, web5: ")
    assert len(error.why.splitlines()) == 1


def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(world: World) -> None:
    async def race() -> None:
        planned = await world.changing.plan(list(world.registry), parse_all(["labels.tier=front"]), Config())
        web3 = world.registry["web3"]
        assert web3.spec is not None
        web3.spec = replace(web3.spec, labels={"tier": "back"})
        await world.changing.carry_out(planned)

    before = world.on_disk()
    with pytest.raises(Busy, match="web3 was changed"):
        asyncio.run(race())
    assert world.on_disk() == before


def test_update_leaves_keys_of_the_settings_and_names_keys_that_can_not_change() -> None:
    has = Spec("web1", Init.APP, ("true",), first_id=1879048192, memory=1 << 30, created="2026-01-01T00:00:00Z")
    wanted = Spec("", Init.APP, ("sleep", "1"), first_id=0, memory=0, labels={"a": "b"})
    changed, never = like(has, wanted, frozenset({"memory"}))
    assert changed == replace(has, command=("sleep", "1"), labels={"a": "b"})
    assert never == ()
    _, never = like(has, replace(wanted, first_id=None, profile="web"), frozenset())
    assert never == ("profile", "privileged")


def test_another_base_on_which_own_packages_break_is_refused_with_their_names(world: World) -> None:
    def planned(to: int) -> list[Planned]:
        found = []
        for name in NAMES:
            container = world.registry[name]
            assert container.wanted is not None
            found.append(Planned(container, container.wanted, replace(container.wanted, generation=to)))
        return found

    asyncio.run(world.changing.refuse_unfit(planned(0)))
    asyncio.run(world.changing.refuse_unfit(planned(7)))
    with pytest.raises(WrongState, match="would break on generation 8") as refused:
        asyncio.run(world.changing.refuse_unfit(planned(8)))
    assert f"{NAMES[0]}: nginx needs libssl3, not 8" in (refused.value.why or "")
    assert f"and {4 * len(NAMES) - 5} more" in (refused.value.why or "")
    assert "--ignore-depends" in (refused.value.hint or "")
