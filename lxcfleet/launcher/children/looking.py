"""The base and the files of it that containers use: staleness, shadows, exposure, and the mask itself."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lxcfleet.base.stack import Stack
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.packages import losses
from lxcfleet.launcher.children.answer import Reply, answer, answer_large
from lxcfleet.launcher.items.base import MaskItem, SinceItem
from lxcfleet.launcher.items.cves import CveItem
from lxcfleet.launcher.items.looks import ExposureItem, StaleItem, UnshadowItem
from lxcfleet.launcher.operations import CHILD_SECONDS
from lxcfleet.patch.stale import scan
from lxcfleet.patch.stale.served import ComparedFiles
from lxcfleet.patch.stale.versions import Versions
from lxcfleet.paths import Paths

if TYPE_CHECKING:
    from lxcfleet.base.mask.build import Since

T = TypeVar("T")


def _each_in_time(found: Iterable[T]) -> Iterator[T]:
    """Each container has the time that this child has for all."""
    for each in found:
        signal.alarm(CHILD_SECONDS)
        yield each


def stale(ask: StaleItem, reply: Reply, paths: Paths) -> None:
    """Look at the files that containers run. All answers are in one memory file, as one may be larger than a datagram."""
    body, text = None, b"[]"
    try:
        wanted = None if ask["wanted"] is None else ComparedFiles.from_json(ask["wanted"])
        targets = map(scan.Target.from_json, ask["targets"])
        look = scan.scan(targets, wanted, losses.read(paths.lost_files), Versions(paths))
        found = _each_in_time(look)
        text = json.dumps([each.to_json() for each in found]).encode()
    except OSError as error:
        body = HostError.from_os_error("what containers run can't be compared", error).body()
    answer_large(reply, body, text)


def shadows(items: list[tuple[str, Any]], reply: Reply, _: Paths) -> None:
    """Look for files that hide the host's in containers, given by name and stack."""
    from lxcfleet.patch.shadow import files  # imported late, as few children need it

    body, text = None, b"[]"
    try:
        found = _each_in_time(files.find((name, Stack.from_json(stack)) for name, stack in items))
        text = json.dumps([each.to_json() for each in found]).encode()
    except OSError as error:
        body = HostError.from_os_error("deltas can't be looked at", error).body()
    answer_large(reply, body, text)


def cves(ask: CveItem, reply: Reply, paths: Paths) -> None:
    """Look at the packages of containers, their changelogs, and debsecan's data."""
    from lxcfleet.patch.cve import look  # imported late, as few children need it

    body, text = None, b"{}"
    try:
        text = json.dumps(look.Look(paths, ask).answer()).encode()
    except (OSError, FleetError) as error:
        failed = "the host's packages can't be read"
        body = (error if isinstance(error, FleetError) else HostError.from_os_error(failed, error)).body()
    answer_large(reply, body, text)


def unshadow(item: UnshadowItem, reply: Reply, _: Paths) -> None:
    """Remove files from a delta that is not mounted, and give it the host's records of packages."""
    from lxcfleet.base.merge import reconcile
    from lxcfleet.patch.shadow import files

    try:
        files.remove(item["delta"], item["paths"])
        if item["records"]:
            reconcile.give_records(Path(item["delta"]), item["records"])
        answer(reply, item["name"])
    except OSError as error:
        failed = HostError.from_os_error(f"{item['name']}: not all could be removed", error)
        answer(reply, item["name"], failed)


def exposure(items: list[ExposureItem], reply: Reply, paths: Paths) -> None:
    """Look for files that a container can read and should not; one line of JSON for each container, in one memory file."""
    from lxcfleet.base import exposure  # imported late, as few children need it

    body, found = None, []
    try:
        found = list(exposure.audit(paths, items))
    except (OSError, FleetError) as error:
        known = error if isinstance(error, FleetError) else HostError.from_os_error("the host can't be looked at", error)
        body = known.body()
    answer_large(reply, body, json.dumps(found).encode())


def mask(item: MaskItem, reply: Reply, paths: Paths) -> None:
    """Bring the mask up to date and have it mounted in the launcher's mount namespace, which this child shares."""
    from lxcfleet.base.mask import mount  # imported late; see there for the reason

    try:
        mount.refresh(paths.on(item["generation"]), item["force"], _since(item["since"]))
        answer(reply, "mask")
    except (OSError, FleetError) as error:
        answer(reply, "mask", error)


def _since(item: SinceItem | None) -> Since | None:
    from lxcfleet.base.mask.build import Since  # imported late, too
    from lxcfleet.base.mask.sweep import BaseChanges

    if item is None:
        return None
    changes = BaseChanges(frozenset(item["inside"]), frozenset(item["below"]), frozenset(item["itself"]))
    return Since(item["record"], changes)


def unmask(generation: int, reply: Reply, paths: Paths) -> None:
    """Unmount the mask of a generation, and remove its image."""
    from lxcfleet.base.mask import mount  # imported late; see there for the reason

    mount.forget(paths.on(generation))
    answer(reply, "mask")


def release(_: None, reply: Reply, paths: Paths) -> None:
    """Unmount the mask, and remove all snapshots of the base, as no container is left that needs either."""
    from lxcfleet.base.mask import mount  # imported late; see there for the reason
    from lxcfleet.base.merge import reconcile  # imported late; see there for the reason

    mount.release(paths)
    reconcile.forget_all(paths)
    answer(reply, "mask")
