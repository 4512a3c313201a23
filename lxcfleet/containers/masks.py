"""The masks that containers share, one for each base: mounted before the first container on it starts, kept up to date, and
released."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable

from lxcfleet.base.mask import build
from lxcfleet.base.mask.build import Since
from lxcfleet.base.mask.freshness import Freshness
from lxcfleet.errors import FleetError, from_body
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.base import MaskItem, SinceItem
from lxcfleet.launcher.operations import MASK, RELEASE, UNMASK
from lxcfleet.paths import Paths

FRESH_SECONDS = 0.5
"""Seconds between two comparisons of a mask with its base: simultaneous starts share one."""


class _Mask:
    """The mask of one base."""

    def __init__(self, paths: Paths, launcher: Launcher, freshness: Freshness | None) -> None:
        """``freshness``: of the host's root. None: the base is frozen, so only the rules change."""
        self._paths, self._launcher, self._freshness = paths, launcher, freshness
        self._lock = asyncio.Lock()
        self._mounted: tuple[int, int | None] = (0, None)
        self.checked = 0.0

    @property
    def there(self) -> bool:
        """Whether the present launcher has mounted one, if only an older one."""
        return self._mounted[0] == self._launcher.generation

    async def refresh(self) -> None:
        """Have one mounted that fits its base."""
        async with self._lock:
            self._launcher.start()
            # Plain lxc-start may have had another image built.
            fresh = self._mounted == (self._launcher.generation, self._image())
            moment = time.monotonic()
            if fresh and moment - self.checked < FRESH_SECONDS:
                return
            current = await asyncio.to_thread(self._is_current)
            if not fresh or not current:
                await self._mount(look=not current)
            self._mounted = (self._launcher.generation, self._image())
            self.checked = moment

    async def release(self) -> None:
        """Have it unmounted, as no container stands on its base."""
        async with self._lock:
            if self.there:
                self._mounted = (0, None)
                with contextlib.suppress(FleetError):
                    await self._launcher.ask(UNMASK, self._paths.generation)

    def forget(self) -> None:
        """Note that it is unmounted."""
        self._mounted = (0, None)

    def _is_current(self) -> bool:
        return build.is_current(self._paths) if self._freshness is None else self._freshness.is_current()

    def _image(self) -> int | None:
        """The image's inode. As long as an image is mounted, no other file gets its inode."""
        try:
            return self._paths.mask_image.stat().st_ino
        except OSError:
            return None

    async def _mount(self, *, look: bool) -> None:
        since = self._freshness.looking() if look and self._freshness is not None else None
        try:
            item = MaskItem(generation=self._paths.generation, force=look, since=None if since is None else _item(since))
            answer = await self._launcher.ask(MASK, item)
            if answer["error"]:
                raise from_body(answer["error"])
            if look and self._freshness is not None:
                await asyncio.to_thread(self._freshness.looked)
        except BaseException:
            if look and self._freshness is not None:
                self._freshness.failed()
            raise


def _item(since: Since) -> SinceItem:
    changes = since.changes
    return SinceItem(
        record=since.record, inside=sorted(changes.inside), below=sorted(changes.below), itself=sorted(changes.itself)
    )


class MaskKeeper:
    """Has the launcher mount the masks, and build each anew when its base or the rules have changed."""

    def __init__(self, paths: Paths, launcher: Launcher) -> None:
        self._paths = paths
        self._launcher = launcher
        self.freshness = Freshness(paths)
        self._live = _Mask(paths, launcher, self.freshness)
        self._frozen: dict[int, _Mask] = {}

    def distrust(self) -> None:
        """Have the next ``refresh`` compare again, as a new request must see every change of the host until now."""
        for each in (self._live, *self._frozen.values()):
            each.checked = 0.0

    async def refresh(self, bases: Iterable[int] = (0,)) -> None:
        """Have masks mounted that fit these bases: generations by their numbers, and the present host as 0."""
        for number in sorted({*bases}):
            await self._of(number).refresh()

    async def have(self) -> None:
        """Have the mask of the host's root mounted, even if it is an older one."""
        self._launcher.start()
        if not self._live.there:
            await self._live.refresh()

    async def forget(self, generation: int) -> None:
        """Release the mask of a generation that is to be removed."""
        if generation in self._frozen:
            await self._frozen.pop(generation).release()

    async def release(self) -> None:
        """Release all loop devices and the snapshots of the bases, as no container is left."""
        masks = (self._live, *self._frozen.values())
        if any(each.there for each in masks) or self._paths.base_snapshots.exists():
            for each in masks:
                each.forget()
            with contextlib.suppress(FleetError):
                await self._launcher.ask(RELEASE, None)

    def _of(self, number: int) -> _Mask:
        if number == 0:
            return self._live
        if number not in self._frozen:
            self._frozen[number] = _Mask(self._paths.on(number), self._launcher, None)
        return self._frozen[number]
