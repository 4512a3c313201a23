"""Secrets: fetching their values, and giving containers what they have of them. Values stay in these processes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lxcfleet.base import runtime
from lxcfleet.data import mounting, secrets
from lxcfleet.errors import FleetError, HostError
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.process import confidential
from lxcfleet.launcher.children.answer import Reply, answer, answer_large, say
from lxcfleet.launcher.items.data import Delivered, DeliverItem, Fetched, FetchItem, TidyItem
from lxcfleet.launcher.operations import FETCH_SECRET
from lxcfleet.paths import Paths
from lxcfleet.spec.container.secrets import DIRECTORY, sources_from_json

SYSTEM_RUN = "20%"
"""The size of a system container's /run, as systemd has it; its mount-util.h, TMPFS_LIMITS_RUN."""


def fetch(item: FetchItem, reply: Reply, paths: Paths) -> None:
    """Have a secret's value there."""
    fetched: Fetched = {"error": None, "digest": "", "changed": False}
    try:
        (source,) = sources_from_json({"it": item["source"]}).values()
        fetched["digest"], fetched["changed"] = secrets.fetch(paths, item["key"], source, anew=item["anew"])
    except FleetError as error:
        fetched["error"] = error.body()
    except OSError as error:
        fetched["error"] = HostError.from_os_error("its value can't be kept", error).body()
    say(reply, FETCH_SECRET, fetched)


def deliver(items: list[DeliverItem], reply: Reply, paths: Paths) -> None:
    """Give containers the present values."""
    confidential.seal()
    try:
        with secrets.opened(paths):
            found = [_deliver_one(item, paths) for item in items]
    except FleetError as error:
        answer_large(reply, error.body(), b"")
    else:
        answer_large(reply, None, json.dumps(found).encode())


def _deliver_one(item: DeliverItem, paths: Paths) -> Delivered:
    wanted = [secrets.Item.from_json(each) for each in item["secrets"]]
    name = item["name"]
    try:
        digests = secrets.deliver(paths, name, item["first_id"], wanted)
    except FleetError as error:
        return {"name": name, "error": error.body(), "digests": {}}
    except OSError as error:
        failure = HostError.from_os_error(f"{name} has its former secrets: new ones can't be written", error)
        return {"name": name, "error": failure.body(), "digests": {}}
    return {"name": name, "error": None, "digests": digests}


def tidy(item: TidyItem, reply: Reply, paths: Paths) -> None:
    """Remove the directories of containers that are gone."""
    gone, only = item["gone"], item["only"]
    try:
        secrets.tidy(paths, lambda name: name in gone or (only is not None and name not in only), last=item["last"])
    except FleetError as error:
        answer(reply, "secrets", error)
    except OSError as error:
        answer(reply, "secrets", HostError.from_os_error("secrets can't be removed", error))
    else:
        answer(reply, "secrets")


def mount(paths: Paths, name: str, first_id: int | None, wanted: Sequence[Any], *, system: bool) -> None:
    """Mount a container's secrets below its root, in the present mount namespace. Raises FleetError, OSError.

    ``system``: its /run is mounted first, as systemd would mount one over the secrets; it takes one that is there.
    """
    if not wanted:
        return
    confidential.seal()
    items = [secrets.Item.from_json(each) for each in wanted]
    with secrets.opened(paths):
        secrets.note_known(paths, name, secrets.deliver(paths, name, first_id, items))
        tree = secrets.show(paths, name)
    try:
        if system:
            runtime.mount_empty(paths.root_mount, first_id or 0, SYSTEM_RUN)
        place = mounting.reach(Path(paths.root_mount), DIRECTORY, first_id or 0)
        try:
            syscalls.attach_at(tree, place, DIRECTORY)
        finally:
            os.close(place)
    finally:
        os.close(tree)
