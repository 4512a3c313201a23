"""Apps: sealing, reading and removing releases."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from lxcfleet.data.apps import sealing, store
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.launcher.children.answer import Reply, answer
from lxcfleet.launcher.items.data import AppItem
from lxcfleet.paths import Paths

SECONDS = 900
"""The longest time, in seconds, that a release may take to be sealed or read."""


def seal(item: AppItem, reply: Reply, paths: Paths) -> None:
    """Seal a release."""
    release = store.parse(item["name"], item["version"], item["record"].encode(), "the request")
    _do(
        f"{release.release}", f"the app {release.release} can't be sealed", reply,
        lambda: sealing.seal(paths, release, Path(item["source"]), item["strip"], item["inside"]),
    )  # fmt: skip


def verify(item: AppItem, reply: Reply, paths: Paths) -> None:
    """Read all files of a release."""
    release = f"{item['name']}@{item['version']}"
    _do(
        release, f"the app {release} can't be read", reply,
        lambda: store.examine(paths, item["name"], item["version"], contents=True),
    )  # fmt: skip


def remove(leftover: str, reply: Reply, paths: Paths) -> None:
    """Remove what is left of a release that has lost its name."""
    with syscalls.unhurried():
        _do(leftover, f"not all of {paths.apps / leftover} can be removed", reply, lambda: store.remove(paths, leftover))


def _do(name: str, failed: str, reply: Reply, act: Callable[[], object]) -> None:
    signal.alarm(SECONDS)
    try:
        act()
    except OSError as error:
        answer(reply, name, HostError.from_os_error(failed, error))
    except FleetError as error:
        answer(reply, name, error)
    else:
        answer(reply, name)
