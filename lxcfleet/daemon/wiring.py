"""All parts of the daemon, put together, and the subscribers to each event."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from lxcfleet.api.findings import EvidenceRecord
from lxcfleet.api.requests import RolloutRequest
from lxcfleet.containers import lxc_config
from lxcfleet.containers.announcements import StartAnnouncements
from lxcfleet.containers.apps import AppSealed, AppsThere
from lxcfleet.containers.common import Common
from lxcfleet.containers.container import Container
from lxcfleet.containers.drain import Drain
from lxcfleet.containers.ends.endings import Endings
from lxcfleet.containers.ends.memory import MemoryKills
from lxcfleet.containers.ends.monitor_guard import MonitorGuard
from lxcfleet.containers.events import (
    ActionDone,
    Began,
    Booting,
    EndedInHand,
    Ends,
    Exited,
    Gone,
    Held,
    Killed,
    SecretChanged,
    SecretsDeclared,
    SpecChanged,
    StartAnnounced,
    StartFailed,
    StartOwed,
    Wished,
)
from lxcfleet.containers.host_keeper import HostKeeper
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.measuring.delta_sizes import DeltaSizes
from lxcfleet.containers.measuring.readings import Readings
from lxcfleet.containers.moving import AtHome
from lxcfleet.containers.order.blocking import Blocking
from lxcfleet.containers.order.conditions import StartConditions
from lxcfleet.containers.order.dependencies import Dependencies
from lxcfleet.containers.reconciling.bases import Bases
from lxcfleet.containers.reconciling.lifecycle import Lifecycle, Making
from lxcfleet.containers.reconciling.prerequisites import Prerequisites
from lxcfleet.containers.reconciling.specs import Specs
from lxcfleet.containers.reconciling.steps import Observer
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.secrets.keeper import Secrets
from lxcfleet.containers.secrets.new_values import SecretChanges
from lxcfleet.containers.supervision.supervision import Supervision
from lxcfleet.daemon.http.access import Access
from lxcfleet.daemon.http.apps import OfApps
from lxcfleet.daemon.http.containers import OfFleet
from lxcfleet.daemon.http.data import OfDisk, OfSecrets, OfVolumes
from lxcfleet.daemon.http.fleets import OfFleets
from lxcfleet.daemon.http.generations import OfGenerations
from lxcfleet.daemon.http.moves import OfMoves
from lxcfleet.daemon.http.patches import OfPatches, OfRehearsals, OfRollouts
from lxcfleet.daemon.http.routes import Handlers
from lxcfleet.daemon.http.scrape import Listener, Scrape
from lxcfleet.daemon.http.server import Server
from lxcfleet.daemon.http.snapshots import OfDrains, OfSnapshots
from lxcfleet.daemon.uses.apps import Apps
from lxcfleet.daemon.uses.archives import Archives
from lxcfleet.daemon.uses.arrivals import VolumeArrivals
from lxcfleet.daemon.uses.baking import Baking
from lxcfleet.daemon.uses.brought import brought
from lxcfleet.daemon.uses.events import DrainEnded
from lxcfleet.daemon.uses.foreground import Foregrounds
from lxcfleet.daemon.uses.moves import Moves
from lxcfleet.daemon.uses.secrets import SecretCalls
from lxcfleet.daemon.uses.service import Fleet, Watching
from lxcfleet.daemon.uses.setting import Setting
from lxcfleet.errors import Busy
from lxcfleet.fleets import apps as of_files
from lxcfleet.fleets.service import Fleets
from lxcfleet.fleets.store import FleetStore
from lxcfleet.health.checks import Checks
from lxcfleet.health.events import HealthChanged, ServingJudged
from lxcfleet.health.prober import Prober
from lxcfleet.host.kernel import disks
from lxcfleet.host.net import sysctl
from lxcfleet.host.packages import dpkg
from lxcfleet.host.process import cgroup
from lxcfleet.launcher.client import Launcher
from lxcfleet.logs.event_store import EventStore
from lxcfleet.logs.keeper import Keeper
from lxcfleet.network.events import AddressChanged
from lxcfleet.network.fleet import FleetNetwork
from lxcfleet.patch.apps import AppSwitch
from lxcfleet.patch.before import Before
from lxcfleet.patch.booted import Booted
from lxcfleet.patch.cve.service import Cves
from lxcfleet.patch.cve.sets import Sets
from lxcfleet.patch.delta_copies import DeltaCopies
from lxcfleet.patch.events import Patched
from lxcfleet.patch.exposure import Audit
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.generations import Generations
from lxcfleet.patch.holding import Holding
from lxcfleet.patch.holds import Holds
from lxcfleet.patch.numbers import PatchNumbers
from lxcfleet.patch.own import OwnParts
from lxcfleet.patch.owners import Owners
from lxcfleet.patch.rebooter import Rebooter
from lxcfleet.patch.rehearsal import Judging, Rehearsals
from lxcfleet.patch.rejections import Rejections
from lxcfleet.patch.rescue import KeptBack, Rescue
from lxcfleet.patch.rescued import Rescued
from lxcfleet.patch.rollout.change_sets import ChangeSets
from lxcfleet.patch.rollout.driver import Driver, Outcomes
from lxcfleet.patch.rollout.known import Known
from lxcfleet.patch.rollout.ledger import Ledger
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.patch.rollout.sight import Sight
from lxcfleet.patch.rollout.state import Rollout
from lxcfleet.patch.rollout.testing import Runner, Trials
from lxcfleet.patch.service import Patch
from lxcfleet.patch.stale.finder import Finder
from lxcfleet.patch.verify.prover import Prover
from lxcfleet.patch.watcher import Survival, Watcher
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus, Event
from lxcfleet.runtime.events import Events
from lxcfleet.runtime.operations import Operations
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.io import DELTA
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import Config
from lxcfleet.spec.selection import Selection

log = logging.getLogger(__name__)


class Parts:
    """All parts, each made after the parts that it needs. Making them starts nothing and changes nothing on the host."""

    def __init__(
        self, paths: Paths, settings: Config, launcher: Launcher, access: Access, observers: Sequence[Observer] = ()
    ) -> None:
        """``observers`` are called before each step that changes a container."""
        self.paths = paths
        self.access = access
        self.launcher = launcher
        self.kept_events = EventStore(paths.events)
        self.events = Events(self.kept_events, lambda: self.consoles.journaled)
        self.bus = Bus()
        self.tasks = Tasks()
        self.host = HostKeeper(launcher)
        self.registry = Registry(paths, launcher, self.bus)
        self.leftovers = self.registry.load()
        self.common = Common(paths, self.registry, launcher, self.bus, Operations(), self.tasks)
        self.memory = MemoryKills(self.registry, self.bus)
        self.endings = Endings(paths, self.registry, self.memory, self.bus)
        self.monitor_guard = MonitorGuard(paths)
        self.announcements = StartAnnouncements(paths, self.registry, self.bus, self.tasks)
        self.consoles = Keeper(paths, settings.logs, self.registry)
        self.network = FleetNetwork(paths, settings.network, self.registry, launcher, self.bus, self.tasks)
        wanted = settings.rollout.min_healthy_time
        self.prober = Prober(paths, Checks(launcher), self.bus, self.tasks, settings.alive_time, wanted)
        self.mask = MaskKeeper(paths, launcher)
        self.store = FleetStore(paths)
        self.secrets = Secrets(paths, self.registry, launcher, self.bus, settings.secrets, self.store.secrets)
        platform = _platform(settings.network.bridge, paths)
        self.specs = Specs(paths, platform, launcher, self.network, self.bus, settings.console_log_kib)
        self.bases = Bases(paths, self._packages_change)
        making = Making(self.specs, self.mask, self.secrets)
        self.lifecycle = Lifecycle(self.common, making, settings, self.network, self.bases)
        self._name_prerequisites()
        self.fleet = Fleet(
            self.common, settings, self.lifecycle, StartConditions(self.prerequisites, self.dependencies, self.drain),
            self.network, self.host, Watching(self.events, self.prober, self.endings), observers,
        )  # fmt: skip
        self._patches()
        self.supervision = Supervision(
            paths, self.registry, self.endings, self.fleet.actions, self.bus, self.tasks, self.rollouts.has_in_hand
        )
        self.foregrounds = Foregrounds(paths, self.fleet, launcher, self.tasks)
        self.arrivals = VolumeArrivals(paths, self.registry, self.fleet.room, self.fleet.volumes, self.bus)
        self.archives = Archives(paths, self.fleet, self.lifecycle, self.specs, launcher, self.arrivals)
        self._of_secrets()
        self._readers()
        self._subscribe()

    def close(self) -> None:
        """The daemon ends: nothing is watched any more, and no descriptor of a container or of a watch stays open."""
        self.prober.close()
        self.consoles.close()
        self.blocking.close()
        self.fleet.boot.close()
        self.tasks.close()
        self.announcements.close()
        self.network.close()
        self.endings.close()
        self.memory.close()
        self.registry.close()
        self.mask.freshness.close()
        self.lifecycle.close()

    def _name_prerequisites(self) -> None:
        """Make the parts that know what has to be there before a container starts."""
        self.dependencies = Dependencies(self.registry, self.prober, self.store.has_group)
        self.drain = Drain(self.paths)
        self.prerequisites = Prerequisites(
            [AtHome(self.paths), self.drain, self.dependencies, self.secrets, AppsThere(self.paths)]
        )  # fmt: skip

    def _patches(self) -> None:
        """Make the parts that deal with patches of the host, and with what follows from other changes."""
        self.blocking: Blocking = Blocking(self.registry, self.prerequisites, self.bus, self.fleet.actions.start_blocked)
        self.finder = Finder(self.paths, self.launcher, self.mask, lambda: self.fleet.config.rollout.data)
        self.fallen = fallen = Fallen(self.paths)
        before = Before(self.paths.well_before)
        known = Known(self.paths)
        ledger = Ledger(self.paths, self.registry, self.bus, fallen, known)
        self.runner = Runner(self.launcher, lambda: self.fleet.config.profiles)
        self.trials = Trials(self.runner.run, self.tasks, ledger.wake.set, known)
        sets = ChangeSets(self.paths, self.fleet.changing)
        sight = Sight(self.fleet, self.finder.scan, fallen, before, self.store, self.trials, sets)
        self.rollouts: Orders = Orders(self.fleet, ledger, sight, fallen, sets)
        self.driver = Driver(
            self.paths, self.fleet, ledger, sight, dpkg.in_pieces, self.endings, sets,
            Outcomes(partial(self.rollouts.undo, by_itself=True), self._rescue, self._went_well, self._verify),
        )
        self._of_apps(sets)
        self.fleets = Fleets(self.fleet, self.rollouts, self.store, self.apps, sets)
        self.owners = Owners()
        self.own = OwnParts(
            self.launcher, self.network, self.owners, self.bus, self.tasks, self.paths.sessions, self.consoles
        )
        self.booted = Booted(self.paths, self.registry, fallen, self.prober.healthy_seconds)
        self.watcher = Watcher(
            self.common, lambda: self.fleet.config.patch, self.mask, self.own, self.finder, self._take_up,
            Survival(before, self.prober, fallen, self.booted),
        )  # fmt: skip
        rejections, rescued = Rejections(self.paths, self.bus), Rescued(self.paths)
        self.holds = Holds(self.paths)
        self.holding = Holding(self.registry, self.holds, rescued)
        self.sets = Sets(self.launcher, lambda: self.fleet.config.cve)
        self.generations = Generations(
            self.common, self.mask, self.fleet.changing, self.rollouts, rejections, self.holds, self.sets.behind
        )
        self.rescue = Rescue(
            self.common, lambda: self.fleet.config.patch, self.generations, self.rollouts,
            KeptBack(rejections, self.holds, rescued), self.bases, lambda: self.watcher.pending,
        )  # fmt: skip
        self._of_rehearsals(sight)
        self.rebooter = Rebooter(
            self.paths, self.fleet, lambda: self.watcher.phase, lambda: self.rollouts.ledger.last, self.watcher.look
        )
        self.patch = Patch(
            self.registry, self.finder, self.watcher, self.owners, self.rebooter, self.rescue.rejected
        )
        self.prover = Prover(
            self.registry, self.finder, self.owners, fallen, self.own, self.generations.behind,
            partial(brought, self.paths),
        )  # fmt: skip
        self.cves = Cves(self.paths, self.registry, self.finder, self.prover, self.sets)

    def _of_rehearsals(self, sight: Sight) -> None:
        """Make the part that tests throwaway clones."""
        self.rehearsals = Rehearsals(
            self.common, self.fleet.creation, self.fleet.actions, self.mask,
            Judging(self.prober, self.runner, sight.tests_of, lambda: self.fleet.config.rollout.healthy_deadline),
            DeltaCopies(self.paths, self.registry, self.fleet.copy_cost, self.fleet.stillness, self.fleet.snapshot_files),
        )  # fmt: skip

    def _of_apps(self, sets: ChangeSets) -> None:
        """Make the parts that deal with releases of apps."""
        self.switch = AppSwitch(self.paths, self.registry, self.fleet.changing, self.rollouts, sets.apps)

        def keep(name: str) -> int:
            said = of_files.kept(self.store, name)
            return self.fleet.config.apps.keep if said is None else said

        self.apps = Apps(
            self.paths, self.registry, self.launcher, self.fleet.operations, self.bus, keep,
            lambda: self.switch.needed() | of_files.wanted(self.store),
        )  # fmt: skip
        self.baking = Baking(self.paths, self.fleet, self.apps)

    def _of_secrets(self) -> None:
        """Make the parts that deal with secrets, and the one that deals with moves."""
        self.moves = Moves(self.paths, self.fleet, self.archives)

        async def restart(names: Sequence[str]) -> None:
            if self.fleet.operations.any("apply"):  # its own rollout comes first, and may restart these anyhow
                raise Busy("an apply is under way")
            await self.rollouts.begin(RolloutRequest("restart", Selection(tuple(names))))

        self.secret_changes = SecretChanges(
            self.secrets, self.registry, self.prober, self.launcher, self.bus, self.tasks,
            lambda: self.fleet.config.rollout, restart,
        )  # fmt: skip
        self.secret_calls = SecretCalls(self.secrets, self.fleet.operations, self.secret_changes.kick)

    def _readers(self) -> None:
        """Make the parts that read from all others: numbers for Prometheus, and the server of the API."""
        self.sizes = DeltaSizes(self.paths, self.registry)
        self.patch_numbers = PatchNumbers(
            self.registry, self.finder, lambda: self.rollouts.ledger.last, self.watcher, self.prover.shadows,
            self.own.look, self.cves.counts,
        )
        readings = Readings(
            self.common, self.sizes, self.prober.of, self.patch_numbers.read, lambda: self.network.lookups.work,
            self._held_until,
        )  # fmt: skip
        self.scrape = Scrape(self.fleet, readings)
        self.listener = Listener(self.scrape)
        self.server = Server(self._handlers(), self.access)

    def _handlers(self) -> list[Handlers]:
        """The handlers of all calls of the API."""
        fleet = self.fleet
        return [
            OfFleet(fleet, Setting(fleet, self.rollouts)),
            OfFleets(self.fleets),
            OfVolumes(fleet.volumes),
            OfSecrets(self.secret_calls),
            OfApps(self.apps, self.switch, self.baking),
            OfDisk(fleet.disk),
            OfSnapshots(fleet.snapshots),
            OfDrains(fleet),
            OfMoves(self.moves),
            OfPatches(self.patch, self.prover, self.cves, Audit(self.paths, self.registry, self.launcher), self.own),
            OfRollouts(self.rollouts, self.rescue, self.secret_changes),
            OfRehearsals(self.rehearsals),
            OfGenerations(self.generations, self.rescue, self.holding),
            self.scrape,
        ]

    def _subscribe(self) -> None:
        """Subscribe all subscribers, in the order in which they hear of an event.

        The order matters: the names and ports of a container that has ended must be withdrawn before it is started again,
        as happens after a reboot from inside.
        """
        subscribe = self.bus.subscribe
        subscribe("log of events", Event, self.events.hear)
        subscribe("host's log", Event, self._tell)
        subscribe("consoles", Began, lambda event: self.consoles.began(event.container))
        subscribe("consoles", SpecChanged, lambda event: self.consoles.respecified(event.container))
        subscribe("consoles", Exited, lambda event: self.consoles.ended(event.container, event.running))
        subscribe("consoles", Gone, lambda event: self.consoles.forget(event.container))
        subscribe("consoles", ActionDone, self._acted)
        subscribe("network", StartAnnounced, lambda event: self.network.expect(_specs(event.container)))
        subscribe("monitor guard", Began, lambda event: self.monitor_guard.began(event.container))
        subscribe("network", Began, lambda event: self.network.began(event.container))
        subscribe("memory", Began, lambda event: self.memory.began(event.container))
        subscribe("health", Began, lambda event: self.prober.begin(event.container))
        subscribe("restart policies", Began, lambda event: self.supervision.began(event.container))
        subscribe("secrets", Began, lambda event: self.secret_changes.began(event.container))
        subscribe("secrets", SecretChanged, lambda _: self.secret_changes.kick())
        subscribe("secrets", SecretsDeclared, lambda _: self.secret_changes.declared())  # also after an apply: see restart
        subscribe("starts", Ends, self._expect_start)
        subscribe("exits", Exited, lambda event: self.supervision.ended(event.container, event.running))
        subscribe("memory", Exited, lambda event: self.memory.ended(event.container.name))
        subscribe("monitor guard", Exited, lambda event: self.monitor_guard.ended(event.container.name))
        subscribe("network", Exited, lambda event: self.network.ended(event.container.name))
        subscribe("health", Exited, lambda event: self.prober.end(event.container))
        subscribe("actions", Exited, lambda event: self.fleet.actions.exited(event.container))
        subscribe("restart policies", Exited, lambda event: self.supervision.follow(event.container))
        subscribe("runs in the foreground", Exited, lambda event: self.foregrounds.ended(event.container))
        subscribe("actions", EndedInHand, self._ended_in_hand)
        subscribe("restart policies", StartOwed, lambda event: self.supervision.start_failed(event.container, event.why))
        subscribe("restart policies", Wished, lambda event: self.supervision.wished(event.container, event.action))
        subscribe("restart policies", HealthChanged, lambda event: self.supervision.judged(event.container, event.health))
        subscribe("restart policies", Gone, lambda event: self.supervision.gone(event.container))
        subscribe("patches", Booting, lambda event: self.booted.booting(event.names))
        subscribe("rollouts", Wished, lambda event: self.rollouts.note_wish(event.container, event.action))
        subscribe("rollouts", Killed, lambda event: self.rollouts.note_kill(event.name))
        subscribe("network", SpecChanged, lambda event: self.network.respecified(event.container, event.keys))
        subscribe("health", SpecChanged, self._change_check)
        subscribe("network", ServingJudged, self._set_member)
        subscribe("health", AddressChanged, lambda _: self.prober.wake())
        subscribe("memory", Gone, lambda event: self.memory.forget(event.container.name))
        subscribe("tests", Gone, lambda event: self.trials.forget(event.container))
        subscribe("endings", Gone, lambda event: self.endings.forget(event.container.name))
        subscribe("rescue", Patched, self._patched)
        self._subscribe_those_that_wait()

    def _subscribe_those_that_wait(self) -> None:
        """The last ones: what they wait for has to be known by then, such as how a run ended."""
        subscribe = self.bus.subscribe
        changes: list[type[Event]] = [Began, Exited, Gone, HealthChanged, AddressChanged]
        for kind in changes:
            subscribe("rollouts", kind, lambda _: self.rollouts.wake())
            subscribe("waiting", kind, lambda _: self.fleet.waiting.wake())
        subscribe("blocked containers", Held, lambda event: self.blocking.held(event.name))
        changes += [AppSealed, DrainEnded]
        wakes = (*changes, ActionDone, Held, SecretChanged, SecretsDeclared, SpecChanged, StartFailed, Wished)
        for kind in wakes:
            subscribe("blocked containers", kind, lambda _: self.blocking.wake())
            subscribe("starts that wait", kind, lambda _: self.prerequisites.tell())

    def _tell(self, event: Event) -> None:
        """The host's log hears of events that users are to see, too."""
        told = event.told()
        if told is None:
            return
        if (name := told.container) is not None and name in self.registry:
            self.consoles.tell(told, self.registry[name])
        else:
            self.consoles.tell(told, None)

    def _acted(self, event: ActionDone) -> None:
        if event.name in self.registry:
            self.consoles.acted(self.registry[event.name])

    async def _take_up(self, found: Collection[str]) -> None:
        await self.rescue.take_up(found)

    async def _rescue(self, rollout: Rollout) -> None:
        await self.rescue.halted(rollout)

    def _went_well(self, rollout: Rollout) -> None:
        self.rescue.went_well(rollout)

    def _packages_change(self) -> bool:
        return self.watcher.at_work

    async def _verify(self, chosen: Selection) -> Sequence[EvidenceRecord]:
        return (await self.prover.verify(chosen, ()))["containers"]

    def _held_until(self) -> Mapping[str, float]:
        return {name: hold.ends() for name, hold in self.holds.among(self.registry).items()}

    def _patched(self, event: Patched) -> None:
        if not event.stale:
            self.rescue.went_well(None)

    def _expect_start(self, event: Ends) -> None:
        if self.supervision.starts_at_once(event.container, failed=event.failed):
            self.lifecycle.expect(event.container)

    def _ended_in_hand(self, event: EndedInHand) -> None:
        self.fleet.actions.ended_in_hand(event.container, succeeded=event.succeeded)
        self.supervision.follow(event.container)

    def _change_check(self, event: SpecChanged) -> None:
        if "health" in event.keys:
            self.prober.respecified(event.container)

    def _set_member(self, event: ServingJudged) -> None:
        """Only healthy containers have an address in the DNS names of their groups."""
        try:
            self.network.set_member(event.container, event.serves)
        except OSError as error:
            log.error("%s: whether it answers for its groups can't be changed: %s", event.container.name, error)


def _specs(container: Container) -> list[Spec]:
    return [] if container.spec is None else [container.spec]


def _platform(bridge: str, paths: Paths) -> lxc_config.Platform:
    apparmor = Path("/sys/module/apparmor/parameters/enabled")
    return lxc_config.Platform(
        cgroup2=cgroup.unified(),
        controllers=cgroup.controllers(),
        limit_files=cgroup.optional(),
        disks=lambda name: disks.of_directory(paths.lxc) if name == DELTA else disks.named(name),
        apparmor=apparmor.exists() and apparmor.read_text(encoding="ascii").strip() == "Y",
        seccomp=Path("/proc/sys/kernel/seccomp").exists(),
        bridge=bridge,
        ipv6=sysctl.has_ipv6(),
        cgroup=cgroup.parent(),
        hook=Path(__file__).resolve().parents[1] / "hook.py",
    )
