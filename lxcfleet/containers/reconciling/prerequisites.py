"""Things that have to be there before a container starts, such as the containers that it depends on.

Rooms that know of such things are providers; the daemon's wiring names them. A container that is to run and lacks something
is blocked: that it is to run is noted on disk, and ``containers.order.blocking`` starts it once nothing is lacking.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from lxcfleet.containers.desired import Lack
from lxcfleet.spec.container.spec import Spec


class Prerequisite(Protocol):
    """A provider: one kind of things that containers need before they start."""

    waived: bool
    """Whether ``--no-deps`` has a container start without them."""

    async def look(self, spec: Spec) -> None:
        """Look what is there, before a container with this spec starts: this may take seconds."""

    def lack(self, spec: Spec) -> Lack | None:
        """The thing that keeps a container with this spec from starting now; None: nothing of this kind. It must not wait."""


class Prerequisites:
    """All providers."""

    def __init__(self, providers: Sequence[Prerequisite] = ()) -> None:
        self._providers = providers
        self._changed = asyncio.Event()
        self.ending = False
        """Whether the daemon ends: nobody waits for anything any more."""

    def lack(self, spec: Spec | None, *, no_deps: bool = False) -> Lack | None:
        """The first thing that keeps a container with this spec from starting; None: nothing does."""
        if spec is None:
            return None
        asked = (each for each in self._providers if not (no_deps and each.waived))
        return next((found for each in asked if (found := each.lack(spec)) is not None), None)

    async def look(self, spec: Spec | None) -> None:
        """Have all providers look what is there, before a container with this spec starts."""
        if spec is None:
            return
        for each in self._providers:
            await each.look(spec)

    def tell(self) -> None:
        """Something changed that containers may wait for."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def end(self) -> None:
        """The daemon ends: that a container is to run is on disk, and the next daemon goes on from there."""
        self.ending = True
        self.tell()

    async def changed(self, seconds: float) -> None:
        """Return when something changed that containers may wait for, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)
