"""The base of a start: the host's root, a generation, or for the time being the generation from before a patch.

While dpkg is at work the host's root is of two minds. A container that starts then gets the base that was frozen before this
patch, if there is one. It has it until its next start: the rollout after the patch moves it to the host's root, as its spec
says all the time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import NamedTuple

from lxcfleet.base.generations.roots import sheets_of
from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)


class _Frozen(NamedTuple):
    """The generation that was frozen before a patch."""

    generation: int
    done: str
    """The last change of packages that had been dealt with. Once there is another one, this patch is through."""


class Bases:
    """Tells on which base a container is to start."""

    def __init__(self, paths: Paths, at_work: Callable[[], bool]) -> None:
        """``at_work``: whether dpkg is at work, or has left packages unfinished, or may come back in a moment."""
        self._paths, self._at_work = paths, at_work
        self._frozen = self._load()

    def note(self, generation: int | None) -> None:
        """A patch is about to come, and this is the host's root as it is before; None: nothing was frozen."""
        self._frozen = None if generation is None else _Frozen(generation, self._done())
        try:
            if self._frozen is None:
                self._paths.patch_base.unlink(missing_ok=True)
            else:
                tree.write(self._paths.patch_base, json.dumps(self._frozen._asdict()))
        except OSError as error:
            log.warning("a daemon that starts during the patch does not know what was frozen before it: %s", error)

    def of(self, spec: Spec) -> int:
        """The number of the generation for a start now; 0: the host's root. Asks nothing unless a patch was announced."""
        frozen = self._frozen
        if frozen is None or spec.generation:
            return spec.generation
        if frozen.done != self._done():
            self.note(None)
            return 0
        return frozen.generation if self._at_work() and self._is_whole(frozen.generation) else 0

    def _is_whole(self, number: int) -> bool:
        """Whether a generation can be used: no start fails for one that was removed by hand."""
        try:
            return bool(sheets_of(self._paths, number))
        except FleetError as error:
            log.warning("containers start on the host's root while dpkg is at work: %s", error.message)
            return False

    def _done(self) -> str:
        try:
            return ondisk.text(self._paths.notice_done, "ascii")
        except (OSError, ValueError):
            return ""

    def _load(self) -> _Frozen | None:
        try:
            data = ondisk.record(self._paths.patch_base)
            return _Frozen(int(data["generation"]), str(data["done"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def for_now(container: Container) -> int:
    """The generation that a running container has only for the time being, as dpkg was at work when it started; 0: none."""
    spec, wanted = container.spec, container.wanted
    if container.running is None or spec is None or wanted is None or wanted.generation:
        return 0
    return spec.generation
