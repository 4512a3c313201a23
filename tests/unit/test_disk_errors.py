"""A file system that gives errors for a while: what can't be removed or read is neither forgotten nor taken for absent."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lxcfleet.containers import owed, store
from lxcfleet.containers.desired import Intent
from lxcfleet.containers.reconciling import plan
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.data import volumes
from lxcfleet.data.apps import store as apps
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import tree
from lxcfleet.host.net import dhcp
from lxcfleet.launcher.children import archives
from lxcfleet.network.uplinks import Uplinks
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.states import Action, State

from .network_parts import context_of
from .one_container import NOBODY, SPEC, OneContainer


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, where: object, call: str, number: int = errno.EIO) -> Iterator[None]:
    """Have a function fail meanwhile."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as context:
        context.setattr(where, call, fail)
        yield


class Fleet(OneContainer):
    """A stopped container, ``web``, that can be destroyed."""

    def __init__(self, directory: Path) -> None:
        self.secrets = SimpleNamespace(forget=self._forget)
        self.room = SimpleNamespace(forget=lambda _: self.registry.forget("web"), release_unused=self._nothing)
        super().__init__(directory)

    async def _nothing(self) -> None:
        pass

    async def _forget(self, _: str) -> None:
        pass


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def test_a_fulfilled_intent_that_can_not_be_removed_is_removed_later(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.lifecycle.note("web", Intent.STOPPED, must=True)
    with failing(monkeypatch, Path, "unlink"):
        with pytest.raises(HostError, match="it is done, and that can't be noted"):
            fleet.lifecycle.note("web", None, must=True)
        fleet.reconciler.settle_again()
        assert fleet.own.pending.exists()
    fleet.reconciler.settle_again()
    assert not fleet.own.pending.exists()
    assert fleet.lifecycle.unsettled == set()


def test_an_intent_that_is_not_fulfilled_stays(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.lifecycle.note("web", Intent.RUN, must=True)
    with failing(monkeypatch, Path, "unlink"):
        fleet.lifecycle.note("web", None, must=False)
    fleet.reconciler.settle_again()  # it is to run, and does not
    assert fleet.own.pending.exists()


def test_an_owed_start_that_can_not_be_noted_again_is_owed_as_before(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a request that failed on the full disk made the daemon forget what it was to start once there is room."""
    with failing(monkeypatch, tree, "write_first", errno.ENOSPC), failing(monkeypatch, tree, "write", errno.ENOSPC):
        fleet.lifecycle.note("web", Intent.RUN, must=False)
        for intent in (Intent.RUN, Intent.STOPPED):
            with pytest.raises(HostError, match="can't note what is to become of it"):
                fleet.lifecycle.note("web", intent, must=True)
            assert fleet.registry.noted(fleet.container) is Intent.RUN
    fleet.reconciler.settle_again()
    assert store.noted(fleet.paths, "web") is Intent.RUN
    assert not fleet.paths.owed_start("web").exists()
    with failing(monkeypatch, tree, "write_first", errno.ENOSPC):
        fleet.lifecycle.note("web", Intent.RUN, must=False)
    with failing(monkeypatch, tree, "write", errno.ENOSPC):
        fleet.lifecycle.note("web", Intent.GONE, must=True)  # a full disk keeps nobody from that
    assert not fleet.container.owed
    assert not fleet.paths.owed_start("web").exists()


def test_an_owed_start_that_the_disk_takes_no_note_of_outlives_the_daemon(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, it was known to that daemon alone."""
    with failing(monkeypatch, tree, "write_first", errno.ENOSPC):
        fleet.lifecycle.note("web", Intent.RUN, must=False)
        fleet.paths.owed_start("gone").touch()
        for _ in range(2):
            fleet.begin()
            owed.recall(fleet.paths, fleet.registry)
            assert fleet.registry.noted(fleet.container) is Intent.RUN
            fleet.reconciler.settle_again()
    assert not fleet.paths.owed_start("gone").exists()
    fleet.reconciler.settle_again()
    assert store.noted(fleet.paths, "web") is Intent.RUN
    fleet.lifecycle.note("web", None, must=True)
    fleet.begin()
    owed.recall(fleet.paths, fleet.registry)
    assert fleet.registry.noted(fleet.container) is None


def test_an_owed_start_that_can_be_noted_nowhere_is_known_to_this_daemon(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    owed.recall(fleet.paths, fleet.registry)  # there is no such directory yet
    with failing(monkeypatch, tree, "write_first", errno.ENOSPC), failing(monkeypatch, Path, "mkdir", errno.ENOSPC):
        fleet.lifecycle.note("web", Intent.RUN, must=False)
    assert fleet.registry.noted(fleet.container) is Intent.RUN


def test_a_start_that_failed_on_a_disk_that_takes_no_note_is_not_owed(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator was told that it failed: no daemon tries it again. A disk that is read-only removes no note either."""
    with failing(monkeypatch, tree, "write_first", errno.EROFS), failing(monkeypatch, Path, "unlink", errno.EROFS):
        fleet.lifecycle.note("web", Intent.RUN, must=False)
        assert fleet.registry.noted(fleet.container) is Intent.RUN
        with pytest.raises(HostError):
            fleet.lifecycle.note("web", None, must=True)
        assert fleet.registry.noted(fleet.container) is None


def test_a_container_that_is_gone_is_not_settled(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.lifecycle.note("web", Intent.STOPPED, must=True)
    with failing(monkeypatch, Path, "unlink"):
        fleet.lifecycle.note("web", None, must=False)
    fleet.registry.forget("web")
    fleet.reconciler.settle_again()
    assert fleet.lifecycle.unsettled == set()


def test_a_container_whose_spec_can_not_be_read_just_now_remains(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, ondisk, "content", errno.ENOMEM):
        assert fleet.lifecycle.remains(fleet.container)


def test_a_container_without_a_directory_does_not_remain_whatever_can_be_read(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose creation had failed was told as broken, until the daemon was started again."""
    shutil.rmtree(fleet.own.directory)
    with failing(monkeypatch, ondisk, "content", errno.ENOMEM):
        assert not fleet.lifecycle.remains(fleet.container)
        with failing(monkeypatch, os, "lstat", errno.EIO):  # nobody knows
            assert fleet.lifecycle.remains(fleet.container)


def test_a_container_that_is_removed_by_half_is_broken_and_says_so(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_room(directories: object) -> None:
        raise HostError("it can't be removed")

    monkeypatch.setattr(fleet.lifecycle, "remove", no_room)
    monkeypatch.setattr("lxcfleet.containers.reconciling.lifecycle.monitor.runs", lambda *_: False)
    monkeypatch.setattr("lxcfleet.containers.reconciling.lifecycle.cgroup.remove", lambda *_: True)
    want = plan.WANTED[Action.DESTROY]
    with pytest.raises(HostError):
        asyncio.run(fleet.reconciler.bring(fleet.container, want, "destroy", None))
    assert fleet.paths.gone("web.0").directory.exists()
    assert fleet.registry["web"].state is State.BROKEN
    assert "destroy web" in str(fleet.container.problem)
    # It keeps its ids, and the same again removes the rest.
    assert fleet.container.spec == SPEC
    assert [step.name for step in fleet.reconciler.plan(fleet.container, want)] == ["want", "retire", "remove"]


def test_a_write_that_fails_says_why_even_if_its_file_can_not_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = failing(monkeypatch, os, "rename", errno.ENOSPC)
    read_only = failing(monkeypatch, Path, "unlink", errno.EROFS)
    with full, read_only, pytest.raises(OSError, match="No space left"):
        tree.write(tmp_path / "file", "text")


def test_what_a_dhcp_client_left_keeps_no_container_from_being_forgotten(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with failing(monkeypatch, Path, "unlink"):
        dhcp.DhcpClient("web", fleet.paths).forget()
    assert "can't be removed" in caplog.text


def test_a_list_of_name_servers_keeps_no_container_from_being_forgotten(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else a container that could not be made was listed as stopped, until the next daemon."""
    with failing(monkeypatch, Path, "unlink", errno.EROFS):
        Uplinks(context_of(fleet.paths)).forget("web")
    assert "can't be removed" in caplog.text


@pytest.mark.parametrize("what", ["volume", "app"])
def test_what_has_lost_its_name_is_removed_though_that_can_not_be_forced_to_the_disk(
    fleet: Fleet, what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was told as an error that nobody foresaw, and all of it stayed on the disk until the next daemon."""
    own = fleet.paths.volume("x").directory if what == "volume" else fleet.paths.release("x", "1").directory
    own.mkdir(parents=True)
    with failing(monkeypatch, os, "fsync"):
        volumes.retire(fleet.paths, "x") if what == "volume" else apps.retire(fleet.paths, "x", "1")
    assert not own.exists()
    assert "may be there again after a loss of power" in caplog.text


def test_a_container_whose_name_can_not_be_forced_to_the_disk_takes_no_volume_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the container stayed with its name, and the volumes that had come with it were removed."""
    paths = Paths(lxc=tmp_path / "lxc", run=tmp_path / "run", etc=tmp_path / "etc")
    new = paths.new("web")
    new.directory.mkdir(parents=True)
    item: Any = {"name": "web", "files": {"lxcfleet.yaml": "x"}, "volumes": [], "snapshot": ""}
    with failing(monkeypatch, tree, "sync_directory"), pytest.raises(OSError, match="Input/output"):
        archives._keep(item, new, b"", paths)
    assert [each.name for each in paths.lxc.iterdir()] == [new.directory.name]


def test_a_stop_that_can_not_be_noted_beside_a_fall_is_told_in_the_log(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fallen = Fallen(fleet.paths)
    fallen.note(fleet.container, "did not come up", "2026-01-01T00:00:00Z")
    orders = Orders(NOBODY, cast(Any, SimpleNamespace(active=None)), NOBODY, fallen, NOBODY)
    with failing(monkeypatch, os, "rename", errno.EROFS):
        orders.note_wish(fleet.container, Action.STOP)
    assert "can't be noted" in caplog.text


# -- a change of a spec ------------------------------------------------------------------------------------------


CHANGED = replace(SPEC, pids=300)


def specs_of(fleet: Fleet) -> Specs:
    specs = Specs(fleet.paths, NOBODY, NOBODY, NOBODY, Bus(), 1024)
    cast(Any, specs).config = lambda spec, _: f"lxc.uts.name = {spec.name}\n"
    return specs


def test_a_change_that_can_not_be_taken_back_is_told_as_it_is_on_disk(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = specs_of(fleet)
    specs.write(fleet.container, CHANGED)
    with failing(monkeypatch, os, "rename", errno.EROFS):
        specs.put_back(fleet.container, SPEC)
    assert store.load(fleet.paths, "web") == CHANGED == fleet.container.wanted


def test_a_change_is_taken_back(fleet: Fleet) -> None:
    specs = specs_of(fleet)
    specs.write(fleet.container, CHANGED)
    specs.put_back(fleet.container, SPEC)
    assert store.load(fleet.paths, "web") == SPEC == fleet.container.wanted


def test_a_former_spec_that_an_earlier_change_left_is_not_put_back(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = specs_of(fleet)
    specs.write(fleet.container, CHANGED)
    with failing(monkeypatch, Path, "unlink"):
        asyncio.run(specs.forget_former([fleet.container]))
    third = replace(SPEC, pids=400)
    with failing(monkeypatch, Path, "unlink"), pytest.raises(HostError):
        specs.write(fleet.container, third)
    specs.put_back(fleet.container, CHANGED)
    assert store.load(fleet.paths, "web") == CHANGED == fleet.container.wanted
