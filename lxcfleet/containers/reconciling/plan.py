"""The steps from the observed to the desired state of a container. Pure, and printable.

The daemon, its launcher or the machine may die at any of these steps. The state is then observed anew, and ``recover``
knows how to go on: the container ends as it was before, or as it was to become. Three rules make that possible. A container
under construction has another name until it is whole. A container that is removed loses its name first. The intent is noted
on disk before anything is done for it.
"""

from __future__ import annotations

from lxcfleet.containers.desired import Desired, Intent, Lack, Observed
from lxcfleet.containers.reconciling.changes import put_live
from lxcfleet.containers.reconciling.holding import AwaitTurn, Hold
from lxcfleet.containers.reconciling.steps import (
    Boot,
    Check,
    Freeze,
    Halt,
    Leave,
    Make,
    Mount,
    PutInForce,
    Remove,
    Retire,
    Settle,
    Step,
    Thaw,
    Want,
    Write,
)
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import Action

Steps = tuple[Step, ...]

WANTED = {
    Action.START: Desired(Intent.RUN),
    Action.STOP: Desired(Intent.STOPPED),
    Action.RESTART: Desired(Intent.RUN, anew=True),
    Action.FREEZE: Desired(Intent.RUN, frozen=True),
    Action.UNFREEZE: Desired(Intent.RUN),
    Action.DESTROY: Desired(Intent.GONE),
}
"""The desired state for each action. To start a frozen container means that it is to run."""


def create(start: bool, lack: Lack | None = None) -> Steps:
    """The steps that create a container. ``lack``: what keeps it from starting."""
    if start and lack is not None:
        return (Make(start), Hold(lack))
    return (Make(start), Mount(), Boot(), Settle()) if start else (Make(start),)


def plan(want: Desired, now: Observed) -> Steps:
    """The steps of an existing container to the desired state; none if it is in that state."""
    match want.intent:
        case Intent.RUN:
            return _run(want, now)
        case Intent.STOPPED:
            if not now.running:
                return _settle(now)
            if not want.lasting:
                return (*_settle(now), *_halt(now))
            # A full disk must keep nobody from stopping a container.
            return (*_want(Intent.STOPPED, now, must=False), *_halt(now), Settle())
        case Intent.GONE:
            return (*_want(Intent.GONE, now), *_halt(now), Retire(), Remove())


def _run(want: Desired, now: Observed) -> Steps:
    if now.running and not want.anew:
        return (*_froze(want, now), *_settle(now))
    start = (Mount(), Boot(), Settle())
    if not now.running and now.lack is not None:
        return (*_want(Intent.RUN, now), Hold(now.lack))
    if now.running:
        # Without a note, a crash in between could leave the container stopped for good.
        return (Check(), *_want(Intent.RUN, now), *_halt(now), *start)
    return (*_want(Intent.RUN, now, must=False), *start)


def in_turn(steps: Steps) -> Steps:
    """The same steps, where a start waits for its turn."""
    return tuple(each for step in steps for each in ((AwaitTurn(), step) if isinstance(step, Mount) else (step,)))


def _froze(want: Desired, now: Observed) -> Steps:
    if want.frozen is None or want.frozen == now.frozen:
        return ()
    return (Freeze(),) if want.frozen else (Thaw(),)


def _want(intent: Intent, now: Observed, *, must: bool = True) -> Steps:
    return () if now.noted is intent else (Want(intent, must, now.noted),)


def _halt(now: Observed) -> Steps:
    if not now.running:
        return ()
    return (Thaw(), Leave(), Halt()) if now.frozen else (Leave(), Halt())


def _settle(now: Observed) -> Steps:
    return (Settle(),) if now.noted else ()


def change(spec: Spec, now: Observed) -> Steps:
    """The steps that give an existing container another spec; the part that needs a restart waits for one."""
    assert now.spec is not None
    if spec == now.spec:  # an earlier change may have ended before it was in force
        return _overdue(now)
    write = Write(spec, now.spec)
    return (write, *_overdue(write.after(now)))


def _overdue(now: Observed) -> Steps:
    """Steps for the part of the desired state that can change while it runs, and has not."""
    if not now.running or now.spec is None or now.in_force is None:
        return ()
    live = put_live(now.in_force, now.spec)
    return (PutInForce(live, now.in_force),) if live != now.in_force else ()


def recover(now: Observed) -> Steps:
    """The steps that finish what a crash or a reboot from inside interrupted."""
    leftovers = (Remove(),) if now.half_made or now.half_removed else ()
    if not now.exists:
        return leftovers
    if now.noted is None:
        return (*leftovers, *_overdue(now))
    # A container that was frozen before stays so: only the operator or a restart thaws it.
    steps = plan(Desired(now.noted, frozen=None), now)
    return (*leftovers, *(_overdue(now) if now.noted is Intent.RUN else ()), *steps)
