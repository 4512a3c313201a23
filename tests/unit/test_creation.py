"""What a creation that failed leaves to others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers import plan, store
from lxcfleet.containers.container import Container
from lxcfleet.containers.lifecycle import Lifecycle
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import FleetError, HostError
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.settings import Config
from lxcfleet.spec.spec import Spec

SPEC = Spec("web", first_id=1879048192, created="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("failure", [HostError("the launcher is gone"), OSError(24, "Too many open files")])
@pytest.mark.parametrize("left", [True, False])
def test_its_ids_are_nobody_elses_while_files_of_it_are_there(
    failure: FleetError | OSError, left: bool, tmp_path: Path
) -> None:
    """They belong to the ids; and whoever removes them later takes the disk limit of that number away."""
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

    async def release_unused() -> None:
        pass

    hands: Any = Hands()
    room: Any = SimpleNamespace(forget=lambda container: forgotten.append(container.name), release_unused=release_unused)
    nobody: Any = None
    registry = Registry(Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path), nobody, Bus())
    container = Container("web", SPEC, busy="create")
    with pytest.raises(type(failure)):
        asyncio.run(Reconciler(registry, hands, nobody, room, 10.0).create(container, plan.create(start=True)))
    assert forgotten == ([] if left else ["web"])
    assert container.busy is None


@pytest.mark.parametrize("broken", [False, True])
def test_what_remains_of_a_container_is_its_directory_or_what_lost_its_name(broken: bool, tmp_path: Path) -> None:
    nobody: Any = None
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    specs: Any = None
    launcher: Any = None
    lifecycle = Lifecycle(paths, specs, launcher, nobody, Config(), nobody, MaskKeeper(paths, nobody), nobody)
    container = Container("web", None if broken else SPEC)
    assert not lifecycle.remains(container)
    paths.gone("web.0").directory.mkdir()
    assert lifecycle.remains(container)
    paths.gone("web.0").directory.rmdir()
    paths.container("web").directory.mkdir()
    assert lifecycle.remains(container) == broken  # what somebody else put there is none of ours
    paths.container("web").spec.write_text(store.render(SPEC))
    assert lifecycle.remains(container)
