"""Reads what the apps of containers bring along, for `verify` and `audit shadow`; see patch.verify.apps."""

from __future__ import annotations

import os
from collections.abc import Mapping

from lxcfleet.data.apps import libraries, manifest, store
from lxcfleet.errors import FleetError
from lxcfleet.patch.verify.apps import Brought
from lxcfleet.paths import Paths
from lxcfleet.spec.container.apps import AppUse


def brought(paths: Paths, uses: Mapping[str, AppUse], installed: Mapping[str, str]) -> dict[str, Brought]:
    """The things that the apps of containers bring along, by container.

    ``uses``: the app of each; ``installed``: the host's packages. The packages of libraries are for the caller to find out.
    """
    wanted = libraries.on_host()
    known: dict[tuple[str, str], Brought] = {}
    for use in uses.values():
        key = (use.name, use.version)
        if key not in known:
            known[key] = _look(paths, use, installed, wanted)
    return {name: known[use.name, use.version] for name, use in uses.items()}


def _look(paths: Paths, use: AppUse, installed: Mapping[str, str], wanted: Mapping[str, str]) -> Brought:
    try:
        release = store.check(paths, use.name, use.version)
        text = paths.release(use.name, use.version).manifest.read_text(encoding="utf-8", errors="surrogateescape")
        files = [entry.path for entry in manifest.parse(text) if entry.kind == "f"]
    except (FleetError, OSError, ValueError) as error:
        return Brought(use.release, problem=str(error).splitlines()[0])
    copies = {path: wanted[base] for path in files if (base := os.path.basename(path)) in wanted}
    hosts = tuple(sorted({*copies.values()}))
    older = {
        name: (version, installed.get(name)) for name, version in release.packages.items() if installed.get(name) != version
    }
    return Brought(use.release, tuple(copies), hosts, older=older)
