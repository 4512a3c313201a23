"""Which packages of the host have files below the places where containers mount something else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from lxcfleet.containers.container import Container
from lxcfleet.errors import HostError
from lxcfleet.host.packages import database

Covered = Mapping[str, tuple[str, ...]]
"""The packages below each place, by the path inside."""


async def covered(containers: Sequence[Container]) -> dict[str, Covered]:
    """For each container, by name. Of one that runs, the mounts of its run count. Raises HostError if that can't be told."""
    places = {each.name: _places(each) for each in containers}
    distinct = sorted({place for found in places.values() for place in found})
    known = await asyncio.to_thread(lambda: {place: packages_below(place) for place in distinct})
    return {name: {place: known[place] for place in found if known[place]} for name, found in places.items()}


def _places(container: Container) -> tuple[str, ...]:
    spec = container.spec or container.wanted
    return () if spec is None else tuple(mount.target for mount in spec.mounted)


def packages_below(place: str) -> tuple[str, ...]:
    """The packages with files below a directory of the host, those with most first. Raises HostError."""
    try:
        with os.scandir(place) as entries:
            if next(entries, None) is None:
                return ()
    except OSError:
        return ()  # to ask dpkg takes long, and there is nothing to hide
    try:
        found = database.owners_below(place)
    except HostError as error:
        raise HostError(f"what the mount at {place} hides can't be told", why=error.message, hint=error.hint) from error
    return tuple(sorted(found, key=lambda package: (-found[package], package)))
