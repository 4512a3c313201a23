"""Whether the packages that containers installed by themselves would have what they depend on, on another base."""

from __future__ import annotations

from collections.abc import Iterable

from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.base import FitItem
from lxcfleet.launcher.operations import FIT


async def unfit(launcher: Launcher, names: Iterable[str], to: int) -> dict[str, list[str]]:
    """The containers that should not get the base ``to`` (0: the host's root), each with the reasons in words: a package of
    its own would lack what it depends on, or would clash with one of that base. Raises FleetError.

    Whatever a container lacks already does not count.
    """
    asked = [*names]
    if not asked:
        return {}
    found = await launcher.ask_large(FIT, FitItem(names=asked, generation=to))
    return {each["name"]: each["broken"] for each in found if each["broken"]}
