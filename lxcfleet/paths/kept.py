"""The files and directories that outlive boots."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from lxcfleet.paths.container import ContainerPaths, snapshot_name
from lxcfleet.paths.release import ReleasePaths
from lxcfleet.paths.roots import Roots
from lxcfleet.paths.snapshot import SnapshotPaths
from lxcfleet.paths.volume import VolumePaths


@lru_cache(512)
def _container(lxc: Path, name: str) -> ContainerPaths:
    """Kept, as each start and each end of a container asks for dozens of its paths."""
    return ContainerPaths(lxc / name)


@dataclass(frozen=True)
class KeptPaths(Roots):
    """The paths below /var/lib and /etc."""

    @cached_property
    def volumes(self) -> Path:
        """The directories of volumes, by name."""
        return self.state / "volumes"

    def volume(self, name: str) -> VolumePaths:
        """The files of the volume ``name``."""
        return VolumePaths(self.volumes / name)

    def new_volume(self, name: str) -> VolumePaths:
        """Where the volume is put together before it gets its own name."""
        return VolumePaths(self.volumes / f"{self.NEW_PREFIX}{name}")

    def gone_volume(self, name: str) -> VolumePaths:
        """Where the volume waits to be removed after it lost its own name."""
        return VolumePaths(self.volumes / f"{self.GONE_PREFIX}{name}")

    @cached_property
    def apps(self) -> Path:
        """The directories of apps, by name: in each its releases, by version. Only root can enter it."""
        return self.state / "apps"

    @cached_property
    def app_history(self) -> Path:
        """The app that each container had before its last change of it; see patch.apps."""
        return self.apps / "former.json"

    @cached_property
    def bakes(self) -> Path:
        """The names of the clones that build releases at the moment; see daemon.uses.baking."""
        return self.apps / "bakes.json"

    def app(self, name: str) -> Path:
        """All of the app ``name``."""
        return self.apps / name

    def release(self, name: str, version: str) -> ReleasePaths:
        """The files of one release."""
        return ReleasePaths(self.app(name) / version)

    def new_release(self, name: str, version: str) -> ReleasePaths:
        """Where the release is put together before it gets its own name."""
        return ReleasePaths(self.app(name) / f"{self.NEW_PREFIX}{version}")

    def gone_release(self, name: str, version: str) -> ReleasePaths:
        """Where the release waits to be removed after it lost its own name."""
        return ReleasePaths(self.app(name) / f"{self.GONE_PREFIX}{version}")

    def container(self, name: str) -> ContainerPaths:
        """The files of the container ``name``."""
        return _container(self.lxc, name)

    def new(self, name: str) -> ContainerPaths:
        """Where ``name`` is put together before it gets its own name."""
        return ContainerPaths(self.lxc / f"{self.NEW_PREFIX}{name}")

    def gone(self, name: str) -> ContainerPaths:
        """Where ``name`` waits to be removed after it lost its own name."""
        return ContainerPaths(self.lxc / f"{self.GONE_PREFIX}{name}")

    @cached_property
    def drained(self) -> Path:
        """Is there while this host is drained; see containers.drain."""
        return self.state / "drained.json"

    @cached_property
    def snapshots(self) -> Path:
        """The snapshots of all containers. On the file system of the deltas, as blocks can be shared only within one."""
        return self.lxc / ".lxcfleet-snapshots"

    def snapshots_of(self, container: str) -> Path:
        """The directories of a container's snapshots, by name."""
        return self.snapshots / container

    def snapshot(self, container: str, name: str) -> SnapshotPaths:
        """The files of one of them."""
        return SnapshotPaths(self.snapshots_of(container) / name)

    @cached_property
    def config_file(self) -> Path:
        """The operator's settings."""
        return self.etc / "lxcfleet.yaml"

    @cached_property
    def mask_rules(self) -> Path:
        """The operator's additions to the mask."""
        return self.etc / "mask.d"

    @cached_property
    def base_snapshots(self) -> Path:
        """The contents of the base at containers' last starts; see base.merge.reconcile."""
        return self.lxc / ".lxcfleet-base"

    def base_snapshot(self, name: str) -> Path:
        """One of them."""
        return self.base_snapshots / snapshot_name(name)

    @cached_property
    def events(self) -> Path:
        """The fleet's events, also those while former daemons ran; see logs.event_store."""
        return self.state / "events"

    @cached_property
    def logs_begun(self) -> Path:
        """Is there once consoles were passed on to the host's log; see logs.keeper."""
        return self.state / "logs-begun"

    @cached_property
    def rehearsals(self) -> Path:
        """A file for each throwaway clone, by its name, until that is destroyed; see patch.rehearsal."""
        return self.state / "rehearsals"

    @cached_property
    def generations(self) -> Path:
        """The frozen bases: a record for each, and their files; see base.generations. Only root can enter it."""
        return self.state / "generations"

    @cached_property
    def sheets(self) -> Path:
        """The directories that generations are made of, by name."""
        return self.generations / "sheets"

    @cached_property
    def sheets_elsewhere(self) -> str:
        """The name of the directory, at the top of another file system, with the sheets that are on that one."""
        import hashlib  # noqa: PLC0415  each start of the command line would wait for it

        usual = ".lxcfleet-generations"
        own = hashlib.sha256(os.fsencode(self.lxc)).hexdigest()[:8]
        return usual if self.lxc == Roots().lxc else f"{usual}-{own}"

    def generation_record(self, number: int) -> Path:
        """The record of the generation; see base.generations.record."""
        return self.generations / f"{number}.json"

    @cached_property
    def rescued(self) -> Path:
        """The containers that got their former base back by themselves; see patch.rescue."""
        return self.state / "rescued.json"

    @cached_property
    def held(self) -> Path:
        """The containers that are held on a generation, and until when; see patch.holds."""
        return self.state / "held.json"

    @cached_property
    def rejected(self) -> Path:
        """The patches whose rollout failed; see patch.rejections."""
        return self.state / "rejected.json"

    @cached_property
    def fleets(self) -> Path:
        """The fleets as they were applied last; see fleets.store."""
        return self.state / "fleets"

    @cached_property
    def change_sets(self) -> Path:
        """The specs that rollouts give containers; see patch.rollout.change_sets."""
        return self.state / "rollouts"

    @cached_property
    def last_change(self) -> Path:
        """The last rollout, if it changed specs: it can be undone after a reboot, too; see patch.rollout.ledger."""
        return self.change_sets / "last"

    @cached_property
    def undone_change(self) -> Path:
        """The rollout that the last one undoes; see patch.rollout.ledger."""
        return self.change_sets / "undone"

    @cached_property
    def hmac_key(self) -> Path:
        """The key of the digests that tell whether a secret has changed."""
        return self.state / "hmac.key"

    @cached_property
    def profiles(self) -> Path:
        """The operator's profiles, each in a file of its own."""
        return self.etc / "profiles.d"

    @cached_property
    def sysctl_file(self) -> Path:
        """The kernel limits that were raised, for the next boot."""
        return Path("/etc/sysctl.d/60-lxcfleet.conf")

    @cached_property
    def running_record(self) -> Path:
        """The containers that run, for the next boot; see containers.supervision.boot."""
        return self.lxc / ".lxcfleet-running"

    @cached_property
    def rebooted(self) -> Path:
        """When the daemon rebooted the host last, or tried to; see patch.rebooter."""
        return self.lxc / ".lxcfleet-rebooted"
