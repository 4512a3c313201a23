"""Frozen bases: made, looked at and removed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable

from lxcfleet.base.generations import build, store, verify
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.launcher.children.answer import Reply, answer, answer_large
from lxcfleet.launcher.items.base import CheckedGeneration, FreezeItem
from lxcfleet.paths import Paths

SECONDS = 600
"""The most seconds for which one may take: a slow disk with a million files needs minutes."""
_MOST = 1000
"""The most files that are named."""


def freeze(item: FreezeItem, reply: Reply, paths: Paths) -> None:
    """Freeze the host's root as it is now."""
    signal.alarm(SECONDS)
    body, number = None, 0
    try:
        made = build.freeze(paths, item["why"], now=time.time(), waiting=item["waiting"])
        number = made.number if made is not None else -max(store.numbers(paths))
    except (OSError, FleetError) as error:
        body = _known("the base can't be frozen", error).body()
    answer_large(reply, body, json.dumps(number).encode())


def check(number: int, reply: Reply, paths: Paths) -> None:
    """Look for files of a generation that were written in place since it was frozen."""
    signal.alarm(SECONDS)
    body, found = None, CheckedGeneration(number=number, files=0, written=[], altered=[], missing=[], strange=[])
    try:
        report = verify.verify(paths, number)
        found = CheckedGeneration(
            number=number, files=report.checked, written=_named(report.written),
            altered=_named(report.altered), missing=_named(report.missing), strange=_named(report.strange),
        )
    except (OSError, FleetError) as error:
        body = _known(f"generation {number} can't be looked at", error).body()
    answer_large(reply, body, json.dumps(found).encode())


def remove(number: int, reply: Reply, paths: Paths) -> None:
    """Remove a generation that no container stands on, and the sheets that no other one has."""
    with syscalls.unhurried():
        try:
            store.remove(paths, number)
        except (OSError, FleetError) as error:
            answer(reply, str(number), _known(f"generation {number} is not removed", error))
        else:
            answer(reply, str(number))


def tidy(_: None, reply: Reply, paths: Paths) -> None:
    """Remove what a freeze or a removal left that was broken off."""
    with syscalls.unhurried():
        try:
            answer(reply, "generations", notes=store.tidy(paths))
        except (OSError, FleetError) as error:
            answer(reply, "generations", _known("not all of the generations' leftovers are removed", error))


def _known(message: str, error: OSError | FleetError) -> FleetError:
    return error if isinstance(error, FleetError) else HostError.from_os_error(message, error)


def _named(paths: Iterable[str]) -> list[str]:
    return sorted(paths)[:_MOST]
