"""The mask that all containers share: mounted before the first of them starts, kept up to date, and released."""

from __future__ import annotations

import asyncio
import contextlib
import time

from lxcfleet.base.mask.freshness import Freshness
from lxcfleet.errors import FleetError, from_body
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.operations import MASK, RELEASE
from lxcfleet.paths import Paths

FRESH_SECONDS = 0.5
"""Seconds between two comparisons of the mask with the host: simultaneous starts share one."""


class MaskKeeper:
    """Has the launcher mount the mask, and build it anew when the host has changed."""

    def __init__(self, paths: Paths, launcher: Launcher) -> None:
        self._paths = paths
        self._launcher = launcher
        self._lock = asyncio.Lock()
        self._checked = 0.0
        self._mounted: tuple[int, int | None] = (0, None)
        self.freshness = Freshness(paths)

    def distrust(self) -> None:
        """Have the next ``refresh`` compare again, as a new request must see every change of the host until now."""
        self._checked = 0.0

    async def refresh(self) -> None:
        """Have a mask mounted that fits the present host."""
        async with self._lock:
            self._launcher.start()
            # Plain lxc-start may have had another image built.
            fresh = self._mounted == (self._launcher.generation, self._image())
            moment = time.monotonic()
            if fresh and moment - self._checked < FRESH_SECONDS:
                return
            current = await asyncio.to_thread(self.freshness.is_current)
            if not fresh or not current:
                await self._mount(look=not current)
            self._mounted = (self._launcher.generation, self._image())
            self._checked = moment

    def _image(self) -> int | None:
        """The image's inode. As long as an image is mounted, no other file gets its inode."""
        try:
            return self._paths.mask_image.stat().st_ino
        except OSError:
            return None

    async def _mount(self, *, look: bool) -> None:
        if look:
            self.freshness.looking()
        try:
            answer = await self._launcher.ask(MASK, look)
            if answer["error"]:
                raise from_body(answer["error"])
        except BaseException:
            self.freshness.failed()
            raise

    async def have(self) -> None:
        """Have a mask mounted, even if it is an older one."""
        self._launcher.start()
        if self._mounted[0] != self._launcher.generation:
            await self.refresh()

    async def release(self) -> None:
        """Release the mask's loop device and the snapshots of the base, as no container is left."""
        async with self._lock:
            if self._mounted[0] == self._launcher.generation or self._paths.base_snapshots.exists():
                self._mounted = (0, None)
                with contextlib.suppress(FleetError):
                    await self._launcher.ask(RELEASE, None)
