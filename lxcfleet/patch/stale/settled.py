"""Which containers need no allowance for a clock that was set back.

The files that a container is served are compared if they changed since its start, or in the hour before, as the clock may
have been set back in between. After most patches containers are restarted at once, so that would be all of its files, in
each look. Where it is known by another clock that the packages were there before the start, it needs no such hour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lxcfleet.host.packages.sightings import Sighting
from lxcfleet.patch.stale.scan import Target
from lxcfleet.patch.stale.served import SLACK_SECONDS
from lxcfleet.patch.stale.versions import Versions
from lxcfleet.paths import Paths


class Settled:
    """Remembers the answer for each run of a container until a package changes."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._sightings: Mapping[str, Sighting] | None = None
        self._known: dict[tuple[str, float], bool] = {}

    def without_slack(
        self, targets: Sequence[Target], began: Mapping[str, float], sightings: Mapping[str, Sighting] | None
    ) -> list[Target]:
        """The targets, those without the allowance as if they had started so much later.

        ``began``: their starts by name, in seconds since the machine booted; ``sightings``: of packages; None: not known now.
        """
        if sightings is None:
            return list(targets)
        if sightings is not self._sightings:
            self._sightings, self._known = sightings, {}
        now = {(target.name, began[target.name]): target for target in targets if target.name in began}
        if new := now.keys() - self._known.keys():
            versions = Versions(self._paths, sightings=sightings)  # not kept: it has both of dpkg's records
            self._known = {key: settled for key, settled in self._known.items() if key in now}
            self._known |= {key: versions.is_settled(key[0], now[key].since, key[1]) for key in sorted(new)}
        settled = {target.name for key, target in now.items() if self._known[key]}
        return [
            replace(target, since=target.since + SLACK_SECONDS) if target.name in settled else target for target in targets
        ]
