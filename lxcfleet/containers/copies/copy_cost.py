"""The cost of copies of deltas, known before any is made: on a file system that can't share blocks each is a full copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lxcfleet.containers.copies.snapshot_files import SnapshotFiles
from lxcfleet.errors import NoCapacity, Unconfirmed
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.looks import UsageItem
from lxcfleet.launcher.operations import USED
from lxcfleet.units import words_of_size

FREELY = 1 << 30
"""So many bytes are copied without a question."""
LOOK_SECONDS = 60.0
"""The longest time, in seconds, for which one delta is added up; what is larger than was seen then counts as large."""

_HINT = "--yes does it, and --dry-run tells how much of which"


@dataclass(frozen=True)
class Cost:
    """The cost of copies on the disk."""

    sizes: dict[str, int]
    """Bytes on the disk, by name."""
    shares: bool
    """Whether a copy shares its blocks with what it is one of."""
    words: dict[str, str]
    """Both in words, by name."""


class CopyCost:
    """Tells what copies take, and refuses those that there is no room for."""

    def __init__(self, files: SnapshotFiles, launcher: Launcher) -> None:
        self._files, self._launcher = files, launcher

    async def weigh(self, targets: Sequence[tuple[str, str]]) -> tuple[dict[str, int], list[str]]:
        """The bytes that these directories take on the disk, by name, and the names of those that were too much to look at.
        Raises FleetError."""
        item: UsageItem = {"targets": [*targets], "depth": 0, "top": 0, "seconds": LOOK_SECONDS}
        found = await self._launcher.ask_large(USED, item)
        sizes = {each["name"]: each["whole"]["disk_bytes"] for each in found}
        return sizes, [each["name"] for each in found if each["cut"]]

    async def of(self, targets: Sequence[tuple[str, str]], *, yes: bool, hint: str = _HINT) -> Cost:
        """The cost of copies of these directories. Raises NoCapacity, Unconfirmed; ``yes``: not that."""
        if not targets:
            return Cost({}, False, {})
        place = await self._files.place()
        sizes, unknown = await self.weigh(targets)
        total = sum(sizes.values())
        words = {name: in_words(size, shares=place["shares"], cut=name in unknown) for name, size in sizes.items()}
        if place["shares"]:
            return Cost(sizes, True, words)
        if total > place["free"]:
            raise NoCapacity(
                "there is no room for the copy",
                why=f"it takes {words_of_size(total)}, and {words_of_size(place['free'])} are free",
                hint="remove snapshots (lxcfleet snapshot list), or have a disk whose file system shares blocks: xfs, btrfs",
            )  # fmt: skip
        if not yes and (total > FREELY or unknown):
            at_least = "at least " if unknown else ""
            raise Unconfirmed(
                f"{at_least}{words_of_size(total)} would have to be copied",
                why="the file system of the containers can't share blocks between copies; containers are frozen meanwhile",
                hint=hint,
            )  # fmt: skip
        return Cost(sizes, False, words)


def in_words(size: int, *, shares: bool, cut: bool = False) -> str:
    """The size of a delta, and how it is copied."""
    how = "shared with the container" if shares else "copied"
    return f"{'at least ' if cut else ''}{words_of_size(size)}, {how}"
