"""The space that deltas and volumes take on the disk, and the changes that containers made. Both take walks through trees
that a container's root made: this process has less of the processor than others, and a time for each tree."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

from lxcfleet.base import changes, mount_plan
from lxcfleet.base.present import Shelf
from lxcfleet.base.stack import Stack
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import mounts, syscalls, usage
from lxcfleet.host.kernel.usage import Sum
from lxcfleet.launcher.children.answer import Reply, answer_large
from lxcfleet.launcher.items.looks import Differing, DiffItem, UsageItem, Used, UsedPath
from lxcfleet.paths import Paths

NICE = 10
MORE_SECONDS = 30
"""A file system that gives no answers ends this process, so long after the time for the tree is up."""


def used(ask: UsageItem, reply: Reply, _: Paths) -> None:
    """Add directories up, each with its largest paths."""
    os.nice(NICE)
    found: list[Used] = []
    for name, directory in ask["targets"]:
        signal.alarm(int(ask["seconds"]) + MORE_SECONDS)
        result = usage.usage(directory, ask["depth"], ask["top"], ask["seconds"])
        paths = [_used_path(path, one) for path, one in result.paths]
        found.append({"name": name, "whole": _used_path("/", result.whole), "paths": paths, "cut": result.cut})
    answer_large(reply, None, json.dumps(found).encode())


def _used_path(path: str, one: Sum) -> UsedPath:
    return {"path": path, "disk_bytes": round(one.disk), "apparent_bytes": round(one.apparent), "items": one.items}


def diff(ask: DiffItem, reply: Reply, _: Paths) -> None:
    """Compare a delta with the layers below it."""
    os.nice(NICE)
    signal.alarm(int(ask["seconds"]) + MORE_SECONDS)
    body: Any = None
    found: Differing = {"changes": [], "counts": {}, "items": 0, "cut": False}
    try:
        stack = _with_bare_base(Stack.from_json(ask["stack"]))
        shelf = Shelf()
        with shelf.present(stack) as present:
            result = changes.find(present, ask["first_id"], ask["path"], ask["most"], ask["seconds"])
        shelf.close()
        listed = [each.to_json() for each in result.listed]
        found = {"changes": listed, "counts": result.counts, "items": result.items, "cut": result.cut}
    except OSError as error:
        body = HostError.from_os_error(f"what {ask['name']} changed can't be told", error).body()
    answer_large(reply, body, json.dumps(found).encode())


def _with_bare_base(stack: Stack) -> Stack:
    """The stack whose base has the host's own file systems and none of its other mounts, as containers have it.

    Gives this process a mount namespace of its own.
    """
    syscalls.unshare_mounts()
    bottom = stack.bottom
    for clone in mount_plan.clones([bottom], mounts.parts().items(), shifted=False):
        syscalls.clone_read_only(clone.source, clone.target, None)
    return Stack((*stack.layers[:-1], bottom._replace(source=bottom.mount or bottom.source)))
