"""The host itself: its features, and ids for its root. Children do this, as the daemon neither forks nor waits."""

from __future__ import annotations

import json
from collections.abc import Sequence

from lxcfleet.errors import FleetError
from lxcfleet.launcher.children.answer import Reply, answer
from lxcfleet.paths import Paths


def features(_: None, reply: Reply, paths: Paths) -> None:
    """Try out what the kernel, the file systems and the installed programs can do."""
    from lxcfleet.host.facts import features  # imported late, as few children need it

    reply.send(json.dumps(features.read(paths).to_json()).encode())


def root_ids(ids: Sequence[int], reply: Reply, _: Paths) -> None:
    """Give root these ids, from the first to the last, for containers. To do this twice has no further effect."""
    from lxcfleet.host.facts import idfiles  # imported late, as few children need it

    first, last = ids
    try:
        idfiles.add_root_range(first, last)
        answer(reply, "root")
    except FleetError as error:
        answer(reply, "root", error)
