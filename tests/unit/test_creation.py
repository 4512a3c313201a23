"""What a creation that failed leaves to others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.containers.creation import Creation
from lxcfleet.containers.plan import Step
from lxcfleet.errors import FleetError, HostError
from lxcfleet.paths import Paths
from lxcfleet.runtime.events import Events
from lxcfleet.runtime.operations import Operations
from lxcfleet.spec.spec import Spec

SPEC = Spec("web", first_id=1879048192, created="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("failure", [HostError("the launcher is gone"), OSError(24, "Too many open files")])
@pytest.mark.parametrize("left", [(), (".lxcfleet-gone-web.0",)])
def test_its_ids_are_nobody_elses_while_files_of_it_are_there(
    failure: FleetError | OSError, left: Sequence[str], tmp_path: Path
) -> None:
    """They belong to the ids; and whoever removes them later takes the disk limit of that number away."""
    forgotten = []

    async def carry_out(_: Container, steps: Sequence[Step]) -> None:
        assert steps == (Step.REMOVE,)
        raise failure

    async def release_unused() -> None:
        pass

    lifecycle: Any = SimpleNamespace(carry_out=carry_out, leftovers=lambda _: list(left))
    room: Any = SimpleNamespace(forget=lambda container: forgotten.append(container.name), release_unused=release_unused)
    nobody: Any = None
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    creation = Creation(paths, nobody, lifecycle, Operations(), Events(), room, nobody)
    asyncio.run(creation._undo(Container("web", SPEC)))
    assert forgotten == ([] if left else ["web"])
