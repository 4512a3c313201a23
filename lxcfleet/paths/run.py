"""The files and directories that are gone after a reboot."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lxcfleet.paths.roots import Roots


@dataclass(frozen=True)
class RunPaths(Roots):
    """The paths below /run."""

    @cached_property
    def socket(self) -> Path:
        """The API."""
        return self.run / "lxcfleet.sock"

    @cached_property
    def attach_socket(self) -> Path:
        """Where exec and shell hand over their file descriptors."""
        return self.run / "attach.sock"

    @cached_property
    def lock(self) -> Path:
        """Held by the daemon, its launcher and the launcher's children; see daemon."""
        return self.run / "daemon.lock"

    @cached_property
    def owed_starts(self) -> Path:
        """A file for each container that is to run, where the disk took no note of that; see containers.owed."""
        return self.run / "owed"

    def owed_start(self, name: str) -> Path:
        """The file of one of these."""
        return self.owed_starts / name

    def lock_of(self, what: str) -> Path:
        """A lock of the mask's, in a directory that only root can enter; see host.kernel.locks."""
        return self.run / "locks" / what

    @cached_property
    def mask_image(self) -> Path:
        """The mask as an ext4 image, which every clone on that base mounts."""
        return self.run / f"mask{self._of_base}.ext4"

    @cached_property
    def mask_record(self) -> Path:
        """The sources of the mask image, to tell when it is out of date."""
        return self.run / f"mask{self._of_base}.json"

    @cached_property
    def base_mount(self) -> Path:
        """Mount point of the base, in private mount namespaces only."""
        return self.run / "base"

    def sheet_mount(self, number: int) -> Path:
        """Mount point of one of a generation's sheets, the topmost being 0, in private mount namespaces only."""
        return self.run / f"base.{number}"

    @cached_property
    def mask_mount(self) -> Path:
        """Mount point of the mask, in private mount namespaces only."""
        return self.run / f"mask{self._of_base}"

    @cached_property
    def next_mask_mount(self) -> Path:
        """Where the next mask is mounted until it takes the place of the one before, in private mount namespaces only."""
        return self.run / f"mask{self._of_base}.next"

    @cached_property
    def services_mount(self) -> Path:
        """Mount point of a container's layer of services, in private mount namespaces only."""
        return self.run / "services"

    @cached_property
    def app_mount(self) -> Path:
        """Mount point of a container's layer that is an app, in private mount namespaces only."""
        return self.run / "app"

    @cached_property
    def root_mount(self) -> Path:
        """Mount point of a container's overlay, in private mount namespaces only."""
        return self.run / "root"

    @cached_property
    def devices_mount(self) -> Path:
        """Where the nodes of devices are that a container is given, in private mount namespaces only."""
        return self.run / "devices"

    @cached_property
    def archive_mount(self) -> Path:
        """Where a container's files are shown with its own ids, on their way from or to an archive, in private mount
        namespaces only."""
        return self.run / "archive"

    @cached_property
    def part_mount(self) -> Path:
        """Where the overlays of parts are put together, in private mount namespaces only."""
        return self.run / "part"

    @cached_property
    def health(self) -> Path:
        """How the containers' health was last; see health.prober."""
        return self.run / "health.json"

    @cached_property
    def user_namespace(self) -> Path:
        """Where a container's user namespace is bound to, in private mount namespaces only."""
        return self.run / "user"

    @cached_property
    def rollout(self) -> Path:
        """The rollout that is under way, or was last; see patch.rollout.ledger."""
        return self.run / "rollout.json"

    @cached_property
    def rollout_packages(self) -> Path:
        """The host's packages before it; see patch.rollout.packages."""
        return self.run / "rollout.packages.json"

    @cached_property
    def freezes(self) -> Path:
        """Is there while the settings have the base frozen before patches: the package manager's hook looks for it."""
        return self.run / "freezes"

    @cached_property
    def secrets(self) -> Path:
        """The values of secrets: a file system in memory, which only root can enter. See data.secrets."""
        return self.run / "secrets"

    @cached_property
    def resolv_conf(self) -> Path:
        """The resolv.conf that clones have, while the fleet has a name server."""
        return self.run / "resolv.conf"

    @cached_property
    def network_record(self) -> Path:
        """Which bridge there is, and whose addresses; see network.records."""
        return self.run / "network.json"

    @cached_property
    def notice(self) -> Path:
        """The package manager's hook touches this file whenever the host's packages changed."""
        return self.run / "patched"

    @cached_property
    def notice_done(self) -> Path:
        """Which change of ``notice`` was dealt with."""
        return self.run / "patched.done"

    @cached_property
    def patch_base(self) -> Path:
        """The generation that was frozen before the patch that is under way; see containers.reconciling.bases."""
        return self.run / "patched.base.json"

    @cached_property
    def well_before(self) -> Path:
        """Which containers were well before packages changed; see patch.before."""
        return self.run / "patched.well.json"

    @cached_property
    def booted(self) -> Path:
        """Which containers the boot of the host brought packages that had changed; see patch.booted."""
        return self.run / "booted.json"

    def backup(self, name: str) -> Path:
        """Where a backup program sees a snapshot of the container, in a mount namespace of its own; see data.view."""
        return self.run / "backup" / name

    @cached_property
    def stills(self) -> Path:
        """A file for each container that is frozen for a copy: which run of it; see containers.copies.stillness."""
        return self.run / "still"

    def still(self, name: str) -> Path:
        """One of them."""
        return self.stills / name

    @cached_property
    def apparmor(self) -> Path:
        """The settings of AppArmor's parser for containers' profiles; see host.lxc.apparmor."""
        return self.run / "apparmor"

    @cached_property
    def rebooting(self) -> Path:
        """The containers that are stopped for a reboot of the host; see patch.rebooter."""
        return self.run / "rebooting.json"

    @cached_property
    def package_lists(self) -> Path:
        """The files that each package had at the last look; see host.packages.losses."""
        return self.run / "packages.lists.gz"

    @cached_property
    def package_sightings(self) -> Path:
        """When each package was first seen in its present state; see host.packages.sightings."""
        return self.run / "packages.seen.json"

    @cached_property
    def lost_files(self) -> Path:
        """The files that packages have lost since the host booted."""
        return self.run / "packages.lost.json"

    @cached_property
    def hosts(self) -> Path:
        """One file per name that is to be found: the name server watches this directory."""
        return self.run / "hosts"

    @cached_property
    def starting(self) -> Path:
        """LXC's hook announces starts here that the daemon did not begin; see containers.announcements."""
        return self.run / "starting"

    @cached_property
    def leases(self) -> Path:
        """The answers of each container's DHCP client; see host.net.dhcp."""
        return self.run / "leases"

    def uplink_names(self, name: str) -> Path:
        """The resolv.conf of a container on a network of the host's."""
        return self.run / "uplinks" / name

    def joining(self, name: str) -> Path:
        """A file that is there while a container that runs is given its interface on a network of the host's again."""
        return self.run / "joining" / name

    @cached_property
    def sessions(self) -> Path:
        """A file for each process of the host that serves a command in a container; see host.process.sessions."""
        return self.run / "sessions"

    @cached_property
    def keepers(self) -> Path:
        """A file for each process that keeps a container in the foreground; see host.lxc.foreground."""
        return self.run / "keepers"

    def foreground(self, name: str) -> Path:
        """The pipes of a container that `lxcfleet run` runs, in a directory that only its root can enter."""
        return self.run / "foreground" / name

    @cached_property
    def clients(self) -> Path:
        """The process ids of the containers' DHCP clients."""
        return self.run / "clients"

    @cached_property
    def dnsmasq_config(self) -> Path:
        """The name server's configuration."""
        return self.run / "dnsmasq.conf"

    @cached_property
    def dnsmasq_pid(self) -> Path:
        """The name server's process id."""
        return self.run / "dnsmasq.pid"

    @cached_property
    def stand_in_config(self) -> Path:
        """The configuration of the name server that answers while dnsmasq is exchanged."""
        return self.run / "stand-in.conf"

    @cached_property
    def stand_in_pid(self) -> Path:
        """Its pid."""
        return self.run / "stand-in.pid"

    @cached_property
    def responder_pid(self) -> Path:
        """The process id of the server of SRV records."""
        return self.run / "responder.pid"
