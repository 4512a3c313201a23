"""Patches whose rollout failed its gate. None of them is chosen again by itself.

A patch is known by a fingerprint of all packages of the host, so it is another one as soon as a single package changes. The
notes survive a reboot of the host.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from lxcfleet.api.findings import RejectionRecord
from lxcfleet.host.kernel import tree
from lxcfleet.host.packages import database
from lxcfleet.patch.events import PatchAccepted, PatchRejected
from lxcfleet.patch.verify.evidence import fingerprint
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

MOST = 50
"""So many are kept, the newest ones."""


@dataclass(frozen=True)
class Rejection:
    """One such patch."""

    patch: str
    """The fingerprint of the host's packages."""
    since: str
    """The time of the note, as in the API."""
    container: str
    """The container at which the rollout halted."""
    why: str
    packages: Mapping[str, list[str]] = field(default_factory=dict)
    """The packages that changed since the container was well, with their versions then and now; empty: not known."""

    def record(self) -> RejectionRecord:
        """It in the API's form."""
        return {
            "since": self.since, "container": self.container, "why": self.why, "packages": dict(self.packages),
        }  # fmt: skip

    def in_words(self) -> str:
        """The reason in one line."""
        return f"{self.container}: {self.why}"


class Rejections:
    """All such patches of this host."""

    def __init__(self, paths: Paths, bus: Bus) -> None:
        self._paths, self._bus = paths, bus

    async def of_host(self) -> Rejection | None:
        """The note about the host's packages as they are now; None: they were not rejected. Raises HostError."""
        known = self._known()
        if not known:
            return None  # that is the rule, and spares the question of dpkg
        return known.get(fingerprint(await asyncio.to_thread(database.installed)))

    def any(self) -> bool:
        """Whether there are any."""
        return bool(self._known())

    def of(self, packages: Mapping[str, str]) -> Rejection | None:
        """The note about these packages, by name and version."""
        known = self._known()
        return known.get(fingerprint(packages)) if known else None

    def note(self, rejection: Rejection) -> None:
        """Note it, in place of an earlier note about the same patch. Raises OSError."""
        known = self._known()
        before = known.pop(rejection.patch, None)
        self._keep({**known, rejection.patch: rejection})
        if before is None or before.in_words() != rejection.in_words():
            self._bus.publish(PatchRejected(rejection.in_words()))

    async def accept(self) -> None:
        """The host's packages as they are now went well in a rollout. Raises HostError, OSError."""
        known = self._known()
        if not known:
            return
        found = known.pop(fingerprint(await asyncio.to_thread(database.installed)), None)
        if found is not None:
            self._keep(known)
            self._bus.publish(PatchAccepted(found.in_words()))

    def _known(self) -> dict[str, Rejection]:
        """By fingerprint, the oldest first."""
        file = self._paths.rejected
        try:
            return {each["patch"]: Rejection(**each) for each in ondisk.record(file)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError) as error:
            log.error("%s can't be read: %s. Patches that were rejected are not known", file, error)
            return {}

    def _keep(self, known: Mapping[str, Rejection]) -> None:
        self._paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = [asdict(each) for each in [*known.values()][-MOST:]]
        tree.write(self._paths.rejected, json.dumps(kept) + "\n", sync=True)
