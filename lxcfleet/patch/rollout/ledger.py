"""The rollout on disk and in mind: one at a time, in one file. Each change is on disk before anything follows from it.

The file goes with a reboot, after which all containers are fresh. A rollout that changed specs can be undone also then: its
beginning and its end are written to a second file, which stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

from lxcfleet.api.records import RolloutRecord
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import tree
from lxcfleet.host.process import proc
from lxcfleet.patch.events import RolloutMoved
from lxcfleet.patch.fallen import Fallen
from lxcfleet.patch.rollout import planner, state
from lxcfleet.patch.rollout.known import Known
from lxcfleet.patch.rollout.planner import Wait
from lxcfleet.patch.rollout.records import record_of
from lxcfleet.patch.rollout.state import MemberPhase, Rollout, RolloutKind, Status
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import now
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 0.1
"""Changes of so long are told together."""


class Ledger:
    """Keeps the rollout that is under way, or was last, and tells those who follow it."""

    def __init__(self, paths: Paths, registry: Registry, bus: Bus, fallen: Fallen, known: Known) -> None:
        self._paths, self._registry, self._bus, self._fallen, self._known = paths, registry, bus, fallen, known
        self._rollout = self._load()
        self._former = self._load_undone()
        """The one before, as it ended; where it is undone once more, as not all could have back what they had, still that."""
        self._reverting = False
        self.wake = asyncio.Event()
        """Set when what is to be done may be something else than before."""
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        """Set while the rollout has ended or is halted."""
        self._blocked_since: float | None = None
        self.waits_for = ""
        """The thing that the rollout waits for at the moment, in words."""

    @property
    def last(self) -> Rollout | None:
        """The rollout that is under way, or was last."""
        return self._rollout

    @property
    def active(self) -> Rollout | None:
        """The rollout that has not ended."""
        rollout = self._rollout
        return None if rollout is None or rollout.status.ended else rollout

    def record(self) -> RolloutRecord | None:
        """The rollout as the API shows it; None if there never was one."""
        return None if self._rollout is None else record_of(self._rollout, waits_for=self.waits_for)

    def former(self, identifier: str) -> RolloutRecord | None:
        """That rollout as it ended, if only one has begun since."""
        rollout = self.before(identifier)
        return None if rollout is None else record_of(rollout)

    def before(self, identifier: str) -> Rollout | None:
        """That rollout as it ended, if only what undoes it has begun since, or one other."""
        return self._former if self._former is not None and self._former.id == identifier else None

    async def follow(self) -> AsyncIterator[RolloutRecord]:
        """The rollout now and at each change, until it has ended or is halted; then the one that takes it back by itself, if
        one does."""
        while True:
            changed = self._changed
            rollout = self._rollout
            if rollout is None:
                return
            yield record_of(rollout, waits_for=self.waits_for)
            if (rollout.status.ended or rollout.status is Status.HALTED) and not self._reverting:
                return
            await changed.wait()
            with contextlib.suppress(TimeoutError):  # what comes within a moment is told together; the end waits for nothing
                await asyncio.wait_for(self._over.wait(), FOLLOW_SECONDS)

    @contextlib.contextmanager
    def reverting(self) -> Iterator[None]:
        """A rollout halts in this block, and what takes it back begins, or is refused: who follows it waits for that."""
        self._reverting = True
        try:
            yield
        finally:
            self._reverting = False
            self._tell()

    def keep(self, rollout: Rollout) -> None:
        """Have it on disk, and then in mind. Raises HostError."""
        if rollout == self._rollout:
            return
        try:
            self._note_fallen(rollout)
            self._keep_change(rollout)
            tree.write(self._paths.rollout, state.to_json(rollout))
        except OSError as error:
            raise HostError.from_os_error("the rollout can't be written down, and so not gone on with", error) from error
        if self._rollout is not None and self._rollout.id != rollout.id and self.before(rollout.undoes) is None:
            self._former = self._rollout
        self._rollout = rollout
        if rollout.status.ended or rollout.status is Status.HALTED:
            self._over.set()
        else:
            self._over.clear()
        self.wake.set()
        self._tell()

    def _keep_change(self, rollout: Rollout) -> None:
        """Have what `rollout undo` needs on the disk, for after a reboot. Raises OSError."""
        before = self._rollout
        if before is not None and (before.id, before.status) == (rollout.id, rollout.status):
            return
        if rollout.kind is RolloutKind.CHANGE:
            self._paths.change_sets.mkdir(mode=0o700, parents=True, exist_ok=True)
            if before is not None and before.id == rollout.undoes:
                tree.write(self._paths.undone_change, state.to_json(before), sync=True)
            tree.write(self._paths.last_change, state.to_json(rollout), sync=True)
        else:
            self._paths.last_change.unlink(missing_ok=True)

    def _note_fallen(self, rollout: Rollout) -> None:
        """Note beside the containers what a patch took down, and how tests went. Forget what came up again. Raises
        OSError."""
        before = self._rollout.members if self._rollout is not None else {}
        for member in rollout.members.values():
            known = before.get(member.name)
            if known is not None and known.phase is member.phase:
                continue
            if member.phase is MemberPhase.DONE and member.trials and member.name in self._registry:
                self._known.note(member.name, member.trials)
            if member.phase is MemberPhase.DONE and member.expected:
                self._fallen.forget(member.name)
            elif member.phase is MemberPhase.FAILED and rollout.patch and member.name in self._registry:
                container = self._registry[member.name]
                if container.running is None and container.foreground is None:
                    self._fallen.note(container, member.note, now())

    def wait_for(self, why: str) -> None:
        """Tell what the rollout waits for at the moment, in words."""
        if why != self.waits_for:
            self.waits_for = why
            self._tell()

    def unblock(self) -> None:
        """Note that something may be begun now that could not be begun so far."""
        self._blocked_since = None

    def blocked_for(self) -> float:
        """For how many seconds nothing could be begun, although nothing is under way."""
        return 0.0 if self._blocked_since is None else proc.uptime() - self._blocked_since

    def note_blocked(self, rollout: Rollout, decision: planner.Decision) -> None:
        """Note whether something can be begun at the moment."""
        flying = rollout.by_phase(MemberPhase.RESTARTING, MemberPhase.GATED)
        blocked = isinstance(decision, Wait) and decision.seconds is not None and not flying
        if not blocked:
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = proc.uptime()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def say(self, text: str) -> None:
        """Tell of the rollout as an event."""
        self._bus.publish(RolloutMoved(text))

    def _load(self) -> Rollout | None:
        try:
            return state.from_json(ondisk.text(self._paths.rollout))
        except FileNotFoundError:
            return self._load_change()
        except (OSError, ValueError) as error:
            log.error("%s can't be read: %s. A rollout that was under way is not gone on with", self._paths.rollout, error)
            return None

    def _load_undone(self) -> Rollout | None:
        """The rollout that the last one undoes, as it ended: what could not be put back may be asked for once more."""
        if self._rollout is None or not self._rollout.undoes:
            return None
        try:
            rollout = state.from_json(ondisk.text(self._paths.undone_change))
        except (OSError, ValueError) as error:
            log.error("%s can't be read: %s. The rest of an undo can't be put back", self._paths.undone_change, error)
            return None
        return rollout if rollout.id == self._rollout.undoes else None

    def _load_change(self) -> Rollout | None:
        """After a reboot: the last rollout, if it changed specs. If it had not come to its end, it does not go on."""
        try:
            rollout = state.from_json(ondisk.text(self._paths.last_change))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("%s can't be read: %s. The last rollout can't be undone", self._paths.last_change, error)
            return None
        return rollout if rollout.status.ended else planner.end(rollout, Status.ABORTED, now())
