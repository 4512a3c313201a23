"""Actions that waited for their turn."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lxcfleet.containers.actions import Actions
from lxcfleet.containers.container import Container
from lxcfleet.containers.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import NotFound
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import Operations
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.states import Action


@pytest.mark.parametrize("action", [Action.START, Action.RESTART, Action.DESTROY, None])
def test_an_action_is_not_done_to_a_new_container_that_got_the_name_of_its_destroyed_one(
    action: Action | None, tmp_path: Path
) -> None:
    """The new container might be stopped, and be destroyed or started like the old one. None: what the old one was owed."""
    nobody: Any = None
    paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
    registry = Registry(paths, nobody, Bus())
    before, after = (Container("web", Spec("web", first_id=1879048192, created=created)) for created in ("1", "2"))
    registry.add(before)
    chosen = before
    registry.forget("web")
    registry.add(after)
    # Anything else that it did with this would fail with another error than NotFound.
    reconciler = Reconciler(registry, nobody, nobody, nobody, 10.0)
    actions = Actions(paths, registry, reconciler, nobody, Operations(), Bus(), nobody)

    async def act() -> None:
        if action is None:
            await reconciler.go_on(chosen)
        else:
            await actions.act(chosen, action, 0)

    with pytest.raises(NotFound, match="destroyed meanwhile"):
        asyncio.run(act())


def test_a_spec_limits_the_time_that_its_container_may_take_to_end() -> None:
    nobody: Any = None
    reconciler = Reconciler(nobody, nobody, nobody, nobody, 10.0)
    assert reconciler._patience(Container("web", Spec("web", stop_timeout=0.5))) == 0.5
    assert reconciler._patience(Container("web", Spec("web"))) == 10.0
    assert reconciler._patience(Container("web", None)) == 10.0
