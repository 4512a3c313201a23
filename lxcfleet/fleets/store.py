"""The fleets as they were applied last, on disk: one file for each fleet, replaced in one step."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from lxcfleet.errors import Broken, HostError, NotFound
from lxcfleet.fleets import applied as records
from lxcfleet.fleets.applied import Applied
from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec.container.secrets import SecretSource
from lxcfleet.spec.policies.rollout import ProfileRollout
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)


class FleetStore:
    """The fleets that were applied on this host."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._known: dict[str, Applied] = {}
        self._broken: dict[str, str] = {}
        for file in sorted(paths.fleets.glob("*.json")) if paths.fleets.is_dir() else ():
            if not file.name.startswith("."):
                self._load(file)

    def _load(self, file: Path) -> None:
        try:
            applied = records.from_json(ondisk.text(file))
            if applied.fleet != file.stem:
                raise ValueError(f"it is about the fleet {applied.fleet!r}")
            self._known[file.stem] = applied
        except (OSError, ValueError) as error:
            log.error("%s can't be read: %s", file, error)
            self._broken[file.stem] = f"{file}: {error}"

    def __iter__(self) -> Iterator[Applied]:
        return iter(self._known.values())

    def find(self, fleet: str) -> Applied | None:
        """The fleet as it was applied last; None: it never was. Raises Broken if that can't be read."""
        if fleet in self._broken:
            raise Broken(
                f"what was applied last of the fleet {fleet} can't be told", why=self._broken[fleet],
                hint=f"forget it, and the whole file counts as new: lxcfleet fleet rm --orphan {fleet}",
            )  # fmt: skip
        return self._known.get(fleet)

    def get(self, fleet: str) -> Applied:
        """The same. Raises NotFound if it never was applied."""
        found = self.find(fleet)
        if found is None:
            raise NotFound(f"no fleet named {fleet}", hint="`lxcfleet fleet list` shows those that were applied here")
        return found

    def is_known(self, fleet: str) -> bool:
        """Whether anything is on disk about a fleet, be it readable or not."""
        return fleet in self._known or fleet in self._broken

    def keep(self, applied: Applied) -> None:
        """Note a fleet. Raises HostError."""
        try:
            self._paths.fleets.mkdir(parents=True, exist_ok=True, mode=0o700)
            tree.write(self._file(applied.fleet), records.to_json(applied), sync=True)
        except OSError as error:
            raise HostError.from_os_error(f"what was applied of {applied.fleet} can't be noted", error) from error
        self._known[applied.fleet] = applied
        self._broken.pop(applied.fleet, None)

    def forget(self, fleet: str) -> bool:
        """Forget a fleet; whether it was known. Raises HostError."""
        known = self.is_known(fleet)
        try:
            self._file(fleet).unlink(missing_ok=True)
        except OSError as error:
            raise HostError.from_os_error(f"the fleet {fleet} can't be forgotten", error) from error
        self._known.pop(fleet, None)
        self._broken.pop(fleet, None)
        return known

    def secrets(self) -> Mapping[str, Mapping[str, SecretSource]]:
        """The sources of secrets that each fleet's file declares, by fleet."""
        return {name: each.secrets for name, each in self._known.items()}

    def rollout_of(self, fleet: str, group: str) -> ProfileRollout | None:
        """How a group takes part in rollouts; None: it is in no file that was applied."""
        found = self._known.get(fleet)
        own = None if found is None else found.groups.get(group)
        return None if own is None else own.rollout

    def has_group(self, name: str) -> bool:
        """Whether any fleet has a group of that name."""
        return any(name in applied.groups for applied in self)

    def rollouts(self) -> Mapping[str, ProfileRollout]:
        """The same for all groups, as FLEET/GROUP."""
        return {f"{a.fleet}/{name}": group.rollout for a in self for name, group in a.groups.items()}

    def _file(self, fleet: str) -> Path:
        return self._paths.fleets / f"{fleet}.json"
