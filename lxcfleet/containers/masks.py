"""The mask that all containers share: mounted before the first of them starts, kept like the host, and given back."""

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
"""The mask is compared with the host at most this often: once for all the starts of one moment."""


class MaskKeeper:
    """Has the launcher mount the mask, and make it anew when the host has changed."""

    def __init__(self, paths: Paths, launcher: Launcher) -> None:
        self._paths = paths
        self._launcher = launcher
        self._lock = asyncio.Lock()
        self._checked = 0.0
        self._mounted: tuple[int, int | None] = (0, None)
        self.freshness = Freshness(paths)

    def distrust(self) -> None:
        """Somebody asks for something new: what changed on the host until this moment must count."""
        self._checked = 0.0

    async def refresh(self) -> None:
        """Have a mask mounted that fits the host as it is now."""
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
        """The image's inode; the one of a mounted image is not given to another file."""
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
        """Have a mask mounted, be it an older one."""
        self._launcher.start()
        if self._mounted[0] != self._launcher.generation:
            await self.refresh()

    async def release(self) -> None:
        """No container is left: give back the mask's loop device, and what was kept of the base."""
        async with self._lock:
            if self._mounted[0] == self._launcher.generation or self._paths.base_snapshots.exists():
                self._mounted = (0, None)
                with contextlib.suppress(FleetError):
                    await self._launcher.ask(RELEASE, None)
