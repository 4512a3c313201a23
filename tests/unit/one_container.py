"""A container, ``web``, that does not run: on disk, and in the parts that change it. Nobody else is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lxcfleet.containers import store
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.reconciling.lifecycle import Lifecycle, Making
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.restarts import FRESH, RestartCourse
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config

from .network_parts import own_paths, registry_of

SPEC = Spec("web", first_id=1879048192, created="2026-01-01T00:00:00Z")
NOBODY: Any = None


class OneContainer:
    """Its files, and what a daemon knows of it."""

    secrets: Any = NOBODY
    room: Any = NOBODY

    def __init__(self, directory: Path) -> None:
        self.paths = own_paths(directory)
        self.own = self.paths.container("web")
        self.own.directory.mkdir()
        self.own.spec.write_text(store.render(SPEC))
        self.begin()

    def begin(self, course: RestartCourse = FRESH) -> None:
        """A daemon begins: it knows what is on disk."""
        self.container = Container("web", SPEC, course=course)
        self.registry: Registry = registry_of(self.paths, self.container)
        self.lifecycle = Lifecycle(
            Common(self.paths, self.registry, NOBODY, Bus()), Making(NOBODY, MaskKeeper(self.paths, NOBODY), self.secrets),
            Config(), NOBODY, NOBODY,
        )  # fmt: skip
        self.reconciler = Reconciler(self.registry, self.lifecycle, NOBODY, self.room, 10.0)
