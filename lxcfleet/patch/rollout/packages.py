"""The host's packages at containers' last starts, kept for as long as a rollout may ask for them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable

from lxcfleet.base.merge import reconcile
from lxcfleet.base.merge.records import STATUS, versions
from lxcfleet.host.kernel import tree
from lxcfleet.patch.rollout import causes
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)


def remember(paths: Paths, names: Iterable[str], *, fresh: bool) -> dict[str, str]:
    """By container, the name of the host's packages at its last start. The next start no longer removes their record.

    ``fresh``: the rollout has just begun, so no records are needed but those of these containers. A base is named by its
    content, so a record that an earlier rollout made is as good as a new one, and to make one takes long. Records that can't
    be read or written are left out: a halt then says that it does not know what changed.
    """
    bases = {name: base for name in names if (base := reconcile.last_base(paths, name))}
    file = paths.rollout_packages
    try:
        before = ondisk.text(file) if file.exists() else ""
        noted = causes.read(before)
        kept = {base: each for base, each in noted.items() if not fresh or base in bases.values()}
        for name, base in bases.items():
            if base not in kept and (status := reconcile.file_at_last_start(paths, name, STATUS)) is not None:
                kept[base] = versions(status)
        if kept != noted or not before:
            tree.write(file, causes.text_of(kept))
    except (OSError, ValueError) as error:
        log.warning("what the host's packages were at the last starts is not known: %s", error)
        return {}
    return bases


def changed(paths: Paths, base: str) -> dict[str, list[str]] | None:
    """The packages that differ from the record of ``base``, with their versions then and now; None: not known."""
    with contextlib.suppress(OSError, ValueError):
        before = causes.recall(ondisk.text(paths.rollout_packages), base)
        if before is not None:
            with open(STATUS, "rb") as file:
                return causes.changes(before, versions(file.read()))
    return None
