"""The launcher's work with masks and generations: arguments and answers."""

from __future__ import annotations

from typing import TypedDict


class SinceItem(TypedDict):
    """The changes in the host's root; see base.mask.build.Since and base.mask.sweep.BaseChanges."""

    record: list[int] | None
    inside: list[str]
    below: list[str]
    itself: list[str]


class MaskItem(TypedDict):
    """A mask to bring up to date and to mount."""

    generation: int
    """Of which base; 0: the host's root."""
    force: bool
    """Whether to look through the whole base, even if the record says that the mask is current."""
    since: SinceItem | None
    """All that changed since the look that the record is of: only that is looked at; None: that is not known."""


class FreezeItem(TypedDict):
    """A freeze of the host's root."""

    why: str
    waiting: bool
    """Whether an apt that holds its lock waits for it."""


class FitItem(TypedDict):
    """Containers that are to get another base."""

    names: list[str]
    generation: int
    """0: the host's root."""


class Fit(TypedDict):
    """Whether what a container installed by itself would fit another base."""

    name: str
    broken: list[str]
    """In words, what its packages would lack there; or why nobody knows."""


class CheckedGeneration(TypedDict):
    """The findings of a look at a generation's files."""

    number: int
    files: int
    written: list[str]
    altered: list[str]
    missing: list[str]
    strange: list[str]
