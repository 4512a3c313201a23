"""A container held still for a copy: what happens in which order, and what is left if something fails or is killed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lxcfleet.containers.container import Container
from lxcfleet.containers.copies import stillness
from lxcfleet.containers.copies.stillness import Stillness
from lxcfleet.containers.events import ActionDone, HookFailed
from lxcfleet.containers.reconciling.reconciler import Reconciler
from lxcfleet.containers.registry import Registry
from lxcfleet.errors import Busy, HostError, InvalidInput, WrongState
from lxcfleet.health.judge import CheckResult
from lxcfleet.health.prober import Prober
from lxcfleet.host.process import cgroup
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus, Event
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.hooks import HOOKS, Hooks
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.reader import Fields
from lxcfleet.spec.states import Health

RUN = "7@1.00"
REAL = cgroup.still
BOTH = Hooks(("before",), ("after", "it"), 5.0)


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch) -> None:
    """No monitors, and cgroups that are ``Host.still`` of the payload's host."""
    monkeypatch.setattr("lxcfleet.host.lxc.monitor.runs", lambda *_: False)
    monkeypatch.setattr("lxcfleet.host.process.cgroup.still", lambda payload, **how: payload.host.still(payload, **how))


class Host:
    """A launcher and a network that note what they are asked for."""

    def __init__(self, frozen: bool = False) -> None:
        self.done: list[str] = []
        self.payload = SimpleNamespace(frozen=frozen, host=self)
        self.fails: dict[str, str] = {}
        self.dies: dict[str, int] = {}
        self.withdrawn: list[bool] = []

    async def ask(self, _: str, item: Any) -> Any:
        word = item["command"][0]
        self.done.append(word)
        await asyncio.sleep(0)
        return {"name": "web", "error": None, "status": 3 if word in self.fails else 0, "output": "a\nlast line"}

    def still(self, payload: Any, *, frozen: bool, seconds: float) -> bool:
        """In place of host.process.cgroup.still."""
        assert seconds > 0
        word = "freeze" if frozen else "unfreeze"
        self.done.append(word)
        if self.dies.get(word, 0):
            self.dies[word] -= 1
            raise OSError(5, "input/output error")
        if word in self.fails:
            return False
        payload.frozen = frozen
        return True

    def set_frozen(self, _: Container, frozen: bool) -> None:
        self.withdrawn.append(frozen)

    def look_if_frozen(self, _: Container) -> None:
        self.withdrawn.append(self.payload.frozen)


class Parts:
    def __init__(self, tmp_path: Path, *, runs: bool = True, frozen: bool = False, hooks: Hooks = BOTH) -> None:
        self.paths = Paths(lxc=tmp_path, run=tmp_path, etc=tmp_path)
        self.host, self.bus, nobody = Host(frozen), Bus(), None
        host: Any = self.host
        self.told: list[Event] = []
        self.bus.subscribe("test", Event, self.told.append)
        self.registry = Registry(self.paths, host, self.bus)
        self.container = Container("web", Spec("web", hooks=hooks))
        self.registry.add(self.container)
        if runs:
            running: Any = SimpleNamespace(identity=RUN, payload=self.host.payload)
            self.container.running = running
        reconciler = Reconciler(self.registry, nobody, nobody, nobody, 1.0)  # type: ignore[arg-type]
        self.reconciler = reconciler
        self.stillness = Stillness(self.paths, self.registry, reconciler, host, host, self.bus)

    def note(self, run: str) -> None:
        self.paths.stills.mkdir()
        self.paths.still("web").write_text(run)

    async def copy(self, work: Callable[[], object] = str, **how: Any) -> stillness.Still:
        async with self.stillness.hold(self.container, "snapshot", **how) as still:
            self.host.done.append("copy")
            assert self.container.busy == "snapshot"
            work()
        return still

    def clean(self) -> bool:
        """Whether nothing is left of it: no freeze, no note, no mark."""
        c = self.container
        return not (self.host.payload.frozen or self.paths.still("web").exists() or c.still or c.busy)


def test_a_running_container_is_frozen_between_its_hooks(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    still = asyncio.run(parts.copy(lambda: parts.host.done.append("still" if parts.container.still else "runs")))
    assert parts.host.done == ["before", "freeze", "copy", "still", "unfreeze", "after"]
    assert still.runs
    assert still.frozen_ms is not None
    assert still.notes == []
    assert parts.clean()
    assert parts.container.stills == 1
    assert parts.told == []


def test_it_is_withdrawn_only_if_it_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(tmp_path)
    asyncio.run(parts.copy())
    assert True not in parts.host.withdrawn
    monkeypatch.setattr(stillness, "GRACE_SECONDS", 0.0)

    async def long() -> None:
        async with parts.stillness.hold(parts.container, "snapshot"):
            await asyncio.sleep(0.05)

    asyncio.run(long())
    assert parts.host.withdrawn[-2:] == [True, False]


def test_without_a_good_pre_freeze_nothing_is_frozen_or_copied(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.host.fails["before"] = ""
    with pytest.raises(HostError, match="the hook pre_freeze of web failed") as caught:
        asyncio.run(parts.copy())
    assert caught.value.why == "before: exit status 3: last line"
    assert parts.host.done == ["before", "after"]
    assert parts.clean()


@pytest.mark.parametrize("where", ["copy", "freeze"])
def test_whatever_fails_it_is_unfrozen_and_its_last_hook_runs(where: str, tmp_path: Path) -> None:
    parts = Parts(tmp_path)

    def fail() -> None:
        raise OSError("disk full")

    if where == "freeze":
        parts.host.fails["freeze"] = "no"
    with pytest.raises(OSError if where == "copy" else HostError):
        asyncio.run(parts.copy(fail))
    assert parts.host.done[-2:] == ["unfreeze", "after"]
    assert parts.clean()


def test_a_copy_that_is_broken_off_during_the_freeze_leaves_nothing_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, the freeze went on in its thread, and could be done after the thaw, when nobody looked any more."""
    parts = Parts(tmp_path)
    begun, broken_off = threading.Event(), threading.Event()
    freeze = parts.host.still

    def slow(payload: Any, **how: Any) -> bool:
        if how["frozen"]:
            begun.set()
            broken_off.wait(0.5)  # a thread that is not waited for is late
        else:
            broken_off.set()
        return freeze(payload, **how)

    monkeypatch.setattr(parts.host, "still", slow)

    async def run() -> None:
        copying = asyncio.ensure_future(parts.copy())
        await asyncio.to_thread(begun.wait)
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying

    asyncio.run(run())
    assert parts.host.done == ["before", "freeze", "unfreeze", "after"]
    assert parts.clean()


def test_a_post_freeze_that_fails_is_told_and_the_copy_is_good(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    parts.host.fails["after"] = ""
    still = asyncio.run(parts.copy())
    assert still.notes == ["its hook post_freeze failed: after: exit status 3: last line"]
    assert parts.told == [HookFailed("web", "post_freeze", "after: exit status 3: last line")]
    assert parts.clean()


def test_a_thaw_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stillness, "_PAUSES", (0.0, 0.0))
    parts = Parts(tmp_path)
    parts.host.dies["unfreeze"] = 2
    asyncio.run(parts.copy())
    assert parts.clean()
    parts.host.dies["unfreeze"] = 3
    still = asyncio.run(parts.copy())
    assert parts.host.payload.frozen
    assert any("can't be unfrozen yet" in note for note in still.notes)
    assert parts.host.done[-1] == "unfreeze", "a hook can't run while it is frozen"
    asyncio.run(parts.stillness.settle())
    assert parts.host.done[-2:] == ["unfreeze", "after"]
    assert parts.clean()
    assert parts.told == [ActionDone("web", "unfrozen", "it was held still for a copy that was broken off")]


@pytest.mark.parametrize(("runs", "frozen"), [(False, False), (True, True)])
def test_one_that_does_not_run_or_is_frozen_already_stays_as_it_is(runs: bool, frozen: bool, tmp_path: Path) -> None:
    parts = Parts(tmp_path, runs=runs, frozen=frozen)
    still = asyncio.run(parts.copy())
    assert parts.host.done == ["copy"]
    assert (still.runs, still.frozen_ms) == (runs, None)
    assert parts.host.payload.frozen is frozen
    assert not parts.paths.still("web").exists()
    assert bool(still.notes) is frozen


def test_without_a_freeze_it_goes_on_running(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    still = asyncio.run(parts.copy(freeze=False))
    assert parts.host.done == ["copy"]
    assert still == stillness.Still(runs=True)


def test_a_copy_of_one_that_was_started_by_others_meanwhile_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(tmp_path, runs=False)
    monkeypatch.setattr("lxcfleet.host.lxc.monitor.runs", lambda *_: True)
    with pytest.raises(WrongState, match="started by somebody else"):
        asyncio.run(parts.copy())


def test_a_copy_of_one_that_was_killed_meanwhile_does_not_count(tmp_path: Path) -> None:
    parts = Parts(tmp_path)
    with pytest.raises(WrongState, match="ended meanwhile"):
        asyncio.run(parts.copy(lambda: setattr(parts.container, "running", None)))
    assert not parts.container.still
    assert not parts.paths.still("web").exists()


@pytest.mark.parametrize(("run", "done"), [(RUN, ["unfreeze", "after"]), ("8@2.00", [])])
def test_the_next_daemon_unfreezes_what_the_former_one_held_still(run: str, done: list[str], tmp_path: Path) -> None:
    """A note about another run says nothing: the container was started anew, and its operator froze it."""
    parts = Parts(tmp_path, frozen=True)
    parts.note(run)
    asyncio.run(parts.stillness.settle())
    assert parts.host.done == done
    assert not parts.paths.still("web").exists()
    assert parts.host.payload.frozen is not bool(done)


def test_one_that_the_operator_froze_stays_frozen_at_the_next_start_of_the_daemon(tmp_path: Path) -> None:
    parts = Parts(tmp_path, frozen=True)
    asyncio.run(parts.stillness.settle())
    assert parts.host.done == []
    assert parts.host.payload.frozen


def test_what_is_held_still_now_is_left_alone(tmp_path: Path) -> None:
    parts = Parts(tmp_path)

    async def both() -> None:
        async with parts.stillness.hold(parts.container, "snapshot"):
            await parts.stillness.settle()
            assert parts.host.payload.frozen

    asyncio.run(both())
    assert parts.host.done.count("unfreeze") == 1


def test_requests_wait_for_what_nobody_asked_for_and_are_refused_otherwise(tmp_path: Path) -> None:
    parts = Parts(tmp_path, hooks=Hooks())

    async def freeze_meanwhile(*, unasked: bool) -> list[str]:
        order: list[str] = []

        async def other() -> None:
            async with parts.reconciler.kept(parts.container, "export"):
                order.append("request")

        async with parts.stillness.hold(parts.container, "snapshot", unasked=unasked):
            task = asyncio.create_task(other())
            await asyncio.sleep(0.01)
            order.append("copied")
        await task
        return order

    assert asyncio.run(freeze_meanwhile(unasked=True)) == ["copied", "request"]
    with pytest.raises(Busy, match="web is busy: snapshot"):
        asyncio.run(freeze_meanwhile(unasked=False))


def test_a_check_that_fails_because_of_the_freeze_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = HealthCheck(CheckKind.EXEC, ("true",), interval=0.01, retries=1, start_period=0.0)
    parts = Parts(tmp_path)
    container = parts.container
    container.spec = replace(container.spec or Spec("web"), health=check)
    running: Any = SimpleNamespace(identity=RUN, payload=parts.host.payload, age=100.0)
    container.running = running
    seen: list[Health | None] = []

    class Fails:
        async def check(self, *_: Any, slow: bool) -> CheckResult:
            container.stills += 1
            if len(seen) > 3:
                container.running = None
            seen.append(prober.of(container) if container.running else None)
            return CheckResult(False, "it is frozen")

    fails: Any = Fails()
    monkeypatch.setattr("lxcfleet.health.prober.STILL_SECONDS", 0.0)
    prober = Prober(parts.paths, fails, parts.bus, Tasks(), 1.0)

    async def watch() -> None:
        prober.begin(container)
        async with asyncio.timeout(60):
            while container.running is not None:
                await asyncio.sleep(0.005)

    asyncio.run(watch())
    assert len(seen) > 3
    assert Health.UNHEALTHY not in seen


@pytest.mark.parametrize(
    ("text", "hooks"),
    [
        ("pre_freeze='db checkpoint' timeout=5", Hooks(("db", "checkpoint"), timeout=5.0)),
        ("""post_freeze="sh -c 'echo a b'" """, Hooks(post_freeze=("sh", "-c", "echo a b"))),
        ("", Hooks()),
    ],
)
def test_hooks_as_text_and_in_files(text: str, hooks: Hooks) -> None:
    assert HOOKS.parse(text) == hooks
    assert HOOKS.parse("" if hooks == Hooks() else HOOKS.tell(hooks)) == hooks
    fields = Fields({"hooks": HOOKS.render(hooks)}, "spec")
    assert HOOKS.read(fields, "hooks") == hooks
    fields.finish("wrong")


@pytest.mark.parametrize(
    "text", ["x", "before=a", "timeout=0", "timeout=61", "timeout=1 timeout=2", "pre_freeze='", "timeout"]
)
def test_what_is_no_hook_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        HOOKS.parse(text)


@pytest.mark.parametrize(
    ("file", "told", "words"),
    [("freezer.state", "freezer.state", ("FROZEN", "THAWED")), ("cgroup.freeze", "cgroup.events", ("1", "0"))],
)
def test_a_cgroup_of_either_version_is_frozen_by_its_file(
    file: str, told: str, words: tuple[str, str], tmp_path: Path
) -> None:
    payload = cgroup.Payload({"freezer" if file == "freezer.state" else "": str(tmp_path)})
    for word, frozen in zip(words, (True, False), strict=True):
        (tmp_path / told).write_text(f"populated 1\nfrozen {int(frozen)}\n")
        assert REAL(payload, frozen=frozen, seconds=0.05)
        assert (tmp_path / file).read_text() == word
    if told == "cgroup.events":
        (tmp_path / told).write_text("populated 1\nfrozen 0\n")
        assert not REAL(payload, frozen=True, seconds=0.01)
    with pytest.raises(FileNotFoundError):
        REAL(cgroup.Payload({}), frozen=True, seconds=0.01)
