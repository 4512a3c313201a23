"""Frozen bases: made, looked at and removed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterable

from lxcfleet.base.generations import build, store, verify
from lxcfleet.base.merge import relations
from lxcfleet.base.merge.reconcile import RecordMerger
from lxcfleet.base.stack import stack_of
from lxcfleet.errors import Broken, FleetError, HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.launcher.children.answer import Reply, answer, answer_large
from lxcfleet.launcher.items.base import CheckedGeneration, Fit, FitItem, FreezeItem
from lxcfleet.launcher.operations import CHILD_SECONDS
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


def fit(item: FitItem, reply: Reply, paths: Paths) -> None:
    """Look whether the packages that containers installed by themselves have what they depend on, on another base."""
    body, found = None, list[Fit]()
    try:
        called = f"generation {item['generation']}" if item["generation"] else "the host's root"
        reader = RecordMerger(paths, stack_of(paths, "", generation=item["generation"]).standing)
        for name in item["names"]:
            signal.alarm(CHILD_SECONDS)
            found.append(Fit(name=name, broken=_broken(reader, name, called)))
    except (OSError, FleetError) as error:
        body = _known("the packages of containers can't be looked at", error).body()
    answer_large(reply, body, json.dumps(found).encode())


def _broken(reader: RecordMerger, name: str, called: str) -> list[str]:
    """A failure to look at one container is told, and does not keep the others from being looked at."""
    try:
        seen = reader.foresee(name)
        return [] if seen is None else relations.broken(*seen, called)
    except (OSError, Broken, relations.TooMuch) as error:
        return [f"it is not known whether its own packages fit: {_why(error)}"]


def _why(error: Exception) -> str:
    return (error.why or error.message) if isinstance(error, FleetError) else str(error)


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
