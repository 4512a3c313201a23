"""The files of the host that a running container can read although no unprivileged user of the host could.

The mask is not taken at its word: the audit looks for everything private on the host as the container's root sees it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lxcfleet.base import mount_plan
from lxcfleet.base.mask.sweep import sweep
from lxcfleet.base.present import Upper
from lxcfleet.base.services import layer as services
from lxcfleet.base.stack import Layer, Stack
from lxcfleet.base.tree import Tree, join
from lxcfleet.errors import FleetError
from lxcfleet.host.kernel import mounts, syscalls
from lxcfleet.host.process import inside
from lxcfleet.host.process.inside import FileMark
from lxcfleet.paths import Paths
from lxcfleet.spec.files import mask_rules
from lxcfleet.spec.files.mask_rules import RuleKind

SAMPLE = 100
"""At most so many files of a private directory are looked for: a container that sees one of them sees most of them."""


@dataclass(frozen=True)
class Secret:
    """Something that other users of the host can't read, and the files by which it would be known."""

    path: str
    why: str
    marks: tuple[FileMark, ...]


@dataclass(frozen=True)
class Exposed:
    """A secret that a container can read."""

    path: str
    why: str

    @property
    def rule(self) -> str:
        """The rule for a file in mask.d that hides this secret."""
        return f"hide: [{self.path!r}]" if not self.path.isprintable() or " " in self.path else f"hide: [{self.path}]"

    def to_json(self) -> dict[str, str]:
        """For the way to the daemon."""
        return {"path": os.fsencode(self.path).decode("utf-8", "backslashreplace"), "why": self.why, "rule": self.rule}


def secrets(paths: Paths, tree: Tree, mounted: Collection[str] = ()) -> list[Secret]:
    """Everything that is private on the host, except for paths that the operator's rules show by name.
    Raises InvalidInput if those rules are wrong.

    ``tree``: the base; ``mounted``: its mount points, but for parts: nobody on the host can read the files that lie under
    these.
    """
    shown = [tree.real(rule.path) for rule in mask_rules.load(paths.mask_rules).rules if rule.kind is RuleKind.SHOW]
    # Deltas are many and do not belong to the host. Whether anybody can see into them shows at their directory.
    own = tree.real(str(paths.lxc), last=True)
    elsewhere = {*mounted, own}
    return [
        Secret(found.path, "the containers' own" if found.path == own else found.why, tuple(_marks(tree, found.path, shown)))
        for found in sweep(tree, {}, exempt=shown, mounts=elsewhere)
    ]


def _secrets_of(paths: Paths, host: Layer, parts: Mapping[str, str]) -> list[Secret]:
    """All that is private in the layer with the host's files. The host's root is mounted for that, with its parts in it and
    nothing else; a generation has nothing else anyway."""
    if host.sheets:
        return secrets(paths, host.tree())
    for clone in mount_plan.clones([host], parts.items(), shifted=False):
        syscalls.clone_read_only(clone.source, clone.target, None)
    return secrets(paths, _tree(host), mounts.points() - {"/", *parts})


def _tree(host: Layer) -> Tree:
    """The layer with the host's files, once it is mounted."""
    return host.tree() if host.sheets else Tree(Path(host.mount or host.source))


def _marks(tree: Tree, path: str, shown: Collection[str]) -> Iterable[FileMark]:
    """The file itself; for a directory, some of the files in it, those nearest to its top first. What is ``shown`` on purpose
    is left out, with all below it: what is private there is found by itself."""
    waiting, left = [path], SAMPLE
    while waiting and left:
        here = waiting.pop(0)
        try:
            status = os.lstat(tree.outside(here))
            if not stat.S_ISDIR(status.st_mode):
                yield FileMark.of(here, status)
                left -= 1
            elif len(waiting) < SAMPLE:
                found = [join(here, name) for name in tree.names(here)]
                waiting += [each for each in found if each not in shown][:SAMPLE]
        except OSError:
            continue  # it has gone


def exposed(
    pid: int, name: str, hidden: Sequence[Secret], tree: Tree, given: Collection[str] = (),
    own: Callable[[str], bool] = lambda _: False,
) -> list[Exposed]:
    """Those of ``hidden`` that the container whose process 1 is ``pid`` can read, but for what it is ``given`` on purpose,
    and for files of its ``own``, even if they are like the host's. Raises HostError."""
    marks = [mark for secret in hidden for mark in secret.marks if mark.path not in given]
    found = inside.readable(pid, name, marks)
    seen = {path for path, copy in found if (copy is None or _same(tree, path, copy)) and not own(path)}
    result = []
    for secret in hidden:
        files = [mark.path for mark in secret.marks if mark.path in seen]
        if files == [secret.path]:
            result.append(Exposed(secret.path, secret.why))
        elif files:
            result.append(Exposed(secret.path, f"{secret.why}: {files[0]}{' and others' if len(files) > 1 else ''}"))
    return result


def _same(tree: Tree, path: str, copy: str) -> bool:
    """Whether the container's file has the same content as the host's. If the container wrote the file itself, it has not."""
    try:
        return inside.digest(tree.outside(path)) == copy
    except OSError:
        return False


def is_own(top: Upper, path: str) -> bool:
    """Whether the container made the file itself: its topmost layer provides it, and it is no copy of one of a lower layer,
    as the kernel makes for who changes a file that he can read."""
    found, _ = top.find(path)
    return found is not None and found.status is not None and not found.copied


def _given(stack: Stack, tree: Tree) -> frozenset[str]:
    """Private files of the host that the container has with its services, as they are what everybody can download."""
    asked = [layer.services for layer in stack.lower if layer.services is not None]
    return frozenset[str]().union(*(services.plan(tree, each).given for each in asked))


def audit(paths: Paths, containers: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """One answer for each container (``name``, ``pid`` and ``stack``): the files it can read, or why that is not known.

    Gives this process a mount namespace of its own.
    """
    syscalls.unshare_mounts()
    parts = mounts.parts()
    hidden: dict[Layer, list[Secret]] = {}
    for container in containers:
        # Layers above the base may show other files, but never make a file of the host secret. So only the base is asked.
        stack = Stack.from_json(container["stack"])
        host = stack.bottom
        if host not in hidden:
            hidden[host] = _secrets_of(paths, host, parts)
        try:
            tree = _tree(host)
            with contextlib.closing(Upper(stack.top)) as top:
                given, own = _given(stack, tree), partial(is_own, top)
                found = exposed(container["pid"], container["name"], hidden[host], tree, given, own)
        except (FleetError, OSError) as error:
            yield {"name": container["name"], "exposed": [], "problem": str(error)}
        else:
            yield {"name": container["name"], "exposed": [each.to_json() for each in found], "problem": None}
