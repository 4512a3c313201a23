"""Every path that the product uses."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar


def _snapshot(name: str) -> str:
    return f"base-{os.path.basename(name)}"


@dataclass(frozen=True)
class ContainerPaths:
    """Where one container's files are."""

    directory: Path

    @property
    def spec(self) -> Path:
        """What the operator asked for: the record that everything else follows from."""
        return self.directory / "lxcfleet.yaml"

    @property
    def former_spec(self) -> Path:
        """The spec before the change that is being made; nothing reads it after a crash."""
        return self.directory / ".lxcfleet.yaml.former"

    @property
    def started(self) -> Path:
        """The spec that its run has: the one that it was started with, and what was changed live since."""
        return self.directory / "started.yaml"

    @property
    def config(self) -> Path:
        """LXC's configuration, written from the spec."""
        return self.directory / "config"

    @property
    def delta(self) -> Path:
        """The overlay's upper directory: the container's only mutable state."""
        return self.directory / "delta"

    @property
    def work(self) -> Path:
        """The overlay's work directory."""
        return self.directory / "work"

    def part_work(self, point: str) -> Path:
        """The work directory of the overlay of a part; see host.kernel.mounts."""
        return self.directory / f"work{point.replace('/', '-')}"

    @property
    def pending(self) -> Path:
        """Holds what is to become of the container, in one word, until that is so; see containers.desired."""
        return self.directory / "pending"

    @property
    def base_record(self) -> Path:
        """What the base was like at its last start; see base.merge.reconcile."""
        return self.directory / "base.json"

    def base_snapshot(self, name: str) -> Path:
        """Its own name for a file of ``Paths.base_snapshots``, so that a copy of its directory has it, too."""
        return self.directory / _snapshot(name)

    @property
    def fallen(self) -> Path:
        """Says that a patch took it down; see patch.fallen."""
        return self.directory / "fallen.json"

    @property
    def exit(self) -> Path:
        """How its last run ended, and when it is started again; see containers.exits."""
        return self.directory / "exit.json"

    @property
    def foreground(self) -> Path:
        """Says that `lxcfleet run` runs it, or did so last; see containers.foreground."""
        return self.directory / "foreground.json"

    @property
    def runs(self) -> Path:
        """Is there while it runs; see containers.supervision."""
        return self.directory / "runs"

    @property
    def stopping(self) -> Path:
        """Who waited for its end, if that was lxc-stop; see containers.lxc_config."""
        return self.directory / "stopping"

    @property
    def secrets(self) -> Path:
        """Digests of the secrets that its program knows of; no values. See containers.secrets."""
        return self.directory / "secrets.json"

    @property
    def console_log(self) -> Path:
        """What the container's console, and so an app container's command, printed."""
        return self.directory / "console.log"

    @property
    def console_times(self) -> Path:
        """When that was printed; see logs.times."""
        return self.directory / "console.times"

    @property
    def console_sent(self) -> Path:
        """How far it was passed on to the host's log; see logs.position."""
        return self.directory / "console.sent"

    @property
    def lxc_log(self) -> Path:
        """What liblxc had to say about starts and stops."""
        return self.directory / "lxc.log"


@dataclass(frozen=True)
class VolumePaths:
    """Where one volume's files are."""

    directory: Path
    """Only root can enter it: users of the host must not reach files that a container's root wrote."""

    @property
    def record(self) -> Path:
        """What was asked for, and its ids; see data.volumes."""
        return self.directory / "volume.yaml"

    @property
    def data(self) -> Path:
        """The directory that containers mount."""
        return self.directory / "data"


@dataclass(frozen=True)
class Paths:
    """Every path of the product. Tests give other roots; nothing else spells a path out."""

    lxc: Path = Path("/var/lib/lxc")
    run: Path = Path("/run/lxcfleet")
    etc: Path = Path("/etc/lxcfleet")
    generation: int = 0
    """Of which base the mask is meant: the number of a generation; 0: the host's root."""

    NEW_PREFIX: ClassVar[str] = ".lxcfleet-new-"
    GONE_PREFIX: ClassVar[str] = ".lxcfleet-gone-"
    PROBE_PREFIX: ClassVar[str] = ".lxcfleet-probe-"
    """Of directories in which overlays are tried."""

    @classmethod
    def from_environment(cls) -> Paths:
        """The usual paths, or those that LXCFLEET_LXC, LXCFLEET_RUN and LXCFLEET_ETC name (a fleet for tests)."""
        usual = cls()
        return cls(
            lxc=Path(os.environ.get("LXCFLEET_LXC", usual.lxc)),
            run=Path(os.environ.get("LXCFLEET_RUN", usual.run)),
            etc=Path(os.environ.get("LXCFLEET_ETC", usual.etc)),
        )

    def on(self, generation: int) -> Paths:
        """The same, with another base."""
        return self if generation == self.generation else replace(self, generation=generation)

    @property
    def _of_base(self) -> str:
        return f"-{self.generation}" if self.generation else ""

    def environment(self) -> dict[str, str]:
        """What ``from_environment`` needs to give these paths again, for child processes."""
        return {"LXCFLEET_LXC": str(self.lxc), "LXCFLEET_RUN": str(self.run), "LXCFLEET_ETC": str(self.etc)}

    @property
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

    def container(self, name: str) -> ContainerPaths:
        """The files of the container ``name``."""
        return ContainerPaths(self.lxc / name)

    def new(self, name: str) -> ContainerPaths:
        """Where ``name`` is put together before it gets its own name."""
        return ContainerPaths(self.lxc / f"{self.NEW_PREFIX}{name}")

    def gone(self, name: str) -> ContainerPaths:
        """Where ``name`` waits to be removed after it lost its own name."""
        return ContainerPaths(self.lxc / f"{self.GONE_PREFIX}{name}")

    @property
    def socket(self) -> Path:
        """The API."""
        return self.run / "lxcfleet.sock"

    @property
    def attach_socket(self) -> Path:
        """Where exec and shell hand over their file descriptors."""
        return self.run / "attach.sock"

    @property
    def lock(self) -> Path:
        """Held by the daemon, its launcher and the launcher's children; see daemon."""
        return self.run / "daemon.lock"

    def lock_of(self, what: str) -> Path:
        """A lock of the mask's, in a directory that only root can enter; see host.kernel.locks."""
        return self.run / "locks" / what

    @property
    def config_file(self) -> Path:
        """The operator's settings."""
        return self.etc / "lxcfleet.yaml"

    @property
    def mask_rules(self) -> Path:
        """The operator's additions to the mask."""
        return self.etc / "mask.d"

    @property
    def mask_image(self) -> Path:
        """The mask as an ext4 image, which every clone on that base mounts."""
        return self.run / f"mask{self._of_base}.ext4"

    @property
    def mask_record(self) -> Path:
        """What the mask image was made from, to tell when it is out of date."""
        return self.run / f"mask{self._of_base}.json"

    @property
    def base_mount(self) -> Path:
        """Mount point of the base, in private mount namespaces only."""
        return self.run / "base"

    def sheet_mount(self, number: int) -> Path:
        """Mount point of one of a generation's sheets, the topmost being 0, in private mount namespaces only."""
        return self.run / f"base.{number}"

    @property
    def mask_mount(self) -> Path:
        """Mount point of the mask, in private mount namespaces only."""
        return self.run / f"mask{self._of_base}"

    @property
    def next_mask_mount(self) -> Path:
        """Where the next mask is mounted until it takes the place of the one before, in private mount namespaces only."""
        return self.run / f"mask{self._of_base}.next"

    @property
    def services_mount(self) -> Path:
        """Mount point of a container's layer of services, in private mount namespaces only."""
        return self.run / "services"

    @property
    def root_mount(self) -> Path:
        """Mount point of a container's overlay, in private mount namespaces only."""
        return self.run / "root"

    @property
    def devices_mount(self) -> Path:
        """Where the nodes of devices are that a container is given, in private mount namespaces only."""
        return self.run / "devices"

    @property
    def part_mount(self) -> Path:
        """Where the overlays of parts are put together, in private mount namespaces only."""
        return self.run / "part"

    @property
    def health(self) -> Path:
        """How the containers' health was last; see health.prober."""
        return self.run / "health.json"

    @property
    def user_namespace(self) -> Path:
        """Where a container's user namespace is bound to, in private mount namespaces only."""
        return self.run / "user"

    @property
    def rollout(self) -> Path:
        """The rollout that is under way, or was last; see patch.rollout.ledger."""
        return self.run / "rollout.json"

    @property
    def rollout_packages(self) -> Path:
        """What the host's packages were before it; see patch.rollout.packages."""
        return self.run / "rollout.packages.json"

    @property
    def base_snapshots(self) -> Path:
        """What the base was like at containers' last starts; see base.merge.reconcile."""
        return self.lxc / ".lxcfleet-base"

    def base_snapshot(self, name: str) -> Path:
        """One of them."""
        return self.base_snapshots / _snapshot(name)

    @property
    def state(self) -> Path:
        """What outlives containers and boots: /var/lib/lxcfleet; for another fleet than the usual one, inside its own."""
        usual = Paths().lxc
        return usual.with_name("lxcfleet") if self.lxc == usual else self.lxc / ".lxcfleet"

    @property
    def events(self) -> Path:
        """What happened to the fleet, also while former daemons ran; see logs.event_store."""
        return self.state / "events"

    @property
    def logs_begun(self) -> Path:
        """Is there once consoles were passed on to the host's log; see logs.keeper."""
        return self.state / "logs-begun"

    @property
    def generations(self) -> Path:
        """The frozen bases: a record for each, and their files; see base.generations. Only root can enter it."""
        return self.state / "generations"

    @property
    def sheets(self) -> Path:
        """The directories that generations are made of, by name."""
        return self.generations / "sheets"

    def generation_record(self, number: int) -> Path:
        """What is known of the generation; see base.generations.record."""
        return self.generations / f"{number}.json"

    @property
    def rescued(self) -> Path:
        """The containers that got their former base back by themselves; see patch.rescue."""
        return self.state / "rescued.json"

    @property
    def freezes(self) -> Path:
        """Is there while the settings have the base frozen before patches: the package manager's hook looks for it."""
        return self.run / "freezes"

    @property
    def fleets(self) -> Path:
        """What was applied last of each fleet's file; see fleets.store."""
        return self.state / "fleets"

    @property
    def change_sets(self) -> Path:
        """The specs that rollouts give containers; see patch.rollout.change_sets."""
        return self.state / "rollouts"

    @property
    def last_change(self) -> Path:
        """The last rollout, if it changed specs: it can be undone after a reboot, too; see patch.rollout.ledger."""
        return self.change_sets / "last"

    @property
    def secrets(self) -> Path:
        """The values of secrets: a file system in memory, which only root can enter. See data.secrets."""
        return self.run / "secrets"

    @property
    def hmac_key(self) -> Path:
        """The key of the digests that tell whether a secret has changed."""
        return self.state / "hmac.key"

    @property
    def profiles(self) -> Path:
        """The operator's profiles, each in a file of its own."""
        return self.etc / "profiles.d"

    @property
    def sysctl_file(self) -> Path:
        """The kernel limits that were raised, for the next boot."""
        return Path("/etc/sysctl.d/60-lxcfleet.conf")

    @property
    def running_record(self) -> Path:
        """What runs, for the next boot; see containers.boot."""
        return self.lxc / ".lxcfleet-running"

    @property
    def resolv_conf(self) -> Path:
        """The resolv.conf that clones have, while the fleet has a name server."""
        return self.run / "resolv.conf"

    @property
    def network_record(self) -> Path:
        """Which bridge there is, and whose addresses; see network.records."""
        return self.run / "network.json"

    @property
    def notice(self) -> Path:
        """The package manager's hook touches this file whenever the host's packages changed."""
        return self.run / "patched"

    @property
    def notice_done(self) -> Path:
        """Which change of ``notice`` was dealt with."""
        return self.run / "patched.done"

    @property
    def well_before(self) -> Path:
        """Which containers were well before packages changed; see patch.before."""
        return self.run / "patched.well.json"

    @property
    def apparmor(self) -> Path:
        """The settings of AppArmor's parser for containers' profiles; see host.lxc.apparmor."""
        return self.run / "apparmor"

    @property
    def rebooting(self) -> Path:
        """The containers that are stopped for a reboot of the host; see patch.rebooter."""
        return self.run / "rebooting.json"

    @property
    def rebooted(self) -> Path:
        """When the daemon rebooted the host last, or tried to; see patch.rebooter."""
        return self.lxc / ".lxcfleet-rebooted"

    @property
    def package_lists(self) -> Path:
        """The files that each package had at the last look; see host.packages.losses."""
        return self.run / "packages.lists.gz"

    @property
    def lost_files(self) -> Path:
        """The files that packages have lost since the host booted."""
        return self.run / "packages.lost.json"

    @property
    def hosts(self) -> Path:
        """One file per name that is to be found: the name server watches this directory."""
        return self.run / "hosts"

    @property
    def starting(self) -> Path:
        """LXC's hook announces starts here that the daemon did not begin; see containers.announcements."""
        return self.run / "starting"

    @property
    def leases(self) -> Path:
        """What each container's DHCP client has to say; see host.net.dhcp."""
        return self.run / "leases"

    @property
    def sessions(self) -> Path:
        """A file for each process of the host that serves a command in a container; see host.process.sessions."""
        return self.run / "sessions"

    @property
    def keepers(self) -> Path:
        """A file for each process that keeps a container in the foreground; see host.lxc.foreground."""
        return self.run / "keepers"

    def foreground(self, name: str) -> Path:
        """The pipes of a container that `lxcfleet run` runs, in a directory that only its root can enter."""
        return self.run / "foreground" / name

    @property
    def clients(self) -> Path:
        """The process ids of the containers' DHCP clients."""
        return self.run / "clients"

    @property
    def dnsmasq_config(self) -> Path:
        """The name server's configuration."""
        return self.run / "dnsmasq.conf"

    @property
    def dnsmasq_pid(self) -> Path:
        """The name server's process id."""
        return self.run / "dnsmasq.pid"

    @property
    def stand_in_config(self) -> Path:
        """The configuration of the name server that answers while dnsmasq is exchanged."""
        return self.run / "stand-in.conf"

    @property
    def stand_in_pid(self) -> Path:
        """Its pid."""
        return self.run / "stand-in.pid"

    @property
    def responder_pid(self) -> Path:
        """The process id of the server of SRV records."""
        return self.run / "responder.pid"
