"""A failed creation: what is released, and when."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers import store
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.reconciling.lifecycle import Lifecycle, Making
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError, HostError
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config

SPEC = Spec("web", first_id=1879048192, created="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("failure", [HostError("the launcher is gone"), OSError(24, "Too many open files")])
@pytest.mark.parametrize("left", [True, False])
def test_the_ids_of_a_failed_creation_stay_taken_while_it_has_files(
    failure: FleetError | OSError, left: bool, tmp_path: Path
) -> None:
    """The files belong to these ids, and whoever removes them later removes the disk limit of that number, too."""
    forgotten = []

    class Hands:
        async def prepare(self, _: Container, *, make: bool, mount: bool) -> int | None:
            assert make
            assert mount
            raise failure

        async def unmake(self, _: Container) -> None:
            raise failure

        def remains(self, _: Container) -> bool:
            return left

        def has_lost_its_name(self, _: str) -> bool:
            return True

    async def release_unused() -> None:
        pass

    hands: Any = Hands()
    room: Any = SimpleNamespace(forget=lambda container: forgotten.append(container.name), release_unused=release_unused)
    nobody: Any = None
    registry = Registry(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path), nobody, Bus())
    container = Container("web", SPEC, busy="create")
    with pytest.raises(type(failure)):
        asyncio.run(Reconciler(registry, hands, nobody, room, 10.0).create(container, start=True))
    assert forgotten == ([] if left else ["web"])
    assert container.busy is None


@pytest.mark.parametrize("broken", [False, True])
def test_the_remains_of_a_container_are_its_directory_or_its_leftovers(broken: bool, tmp_path: Path) -> None:
    nobody: Any = None
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    making = Making(nobody, MaskKeeper(paths, nobody), nobody)
    lifecycle = Lifecycle(Common(paths, nobody, nobody, nobody), making, Config(), nobody, nobody)
    container = Container("web", None if broken else SPEC)
    assert not lifecycle.remains(container)
    paths.gone("web.0").directory.mkdir()
    assert lifecycle.remains(container)
    paths.gone("web.0").directory.rmdir()
    paths.container("web").directory.mkdir()
    assert lifecycle.remains(container) == broken  # a directory that somebody else put there is none of ours
    paths.container("web").spec.write_text(store.render(SPEC))
    assert lifecycle.remains(container)
