"""The consequences in containers when secrets have other values: restarts as a rollout; signals and commands in waves.

Waves have the sizes that the settings have for rollouts. After each, its containers have to be well for as long as a rollout
would wait; if one is not, the rest is not told, and an event says so.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

from lxcfleet.containers.container import Container, Running
from lxcfleet.containers.events import SecretHalted, SecretTold
from lxcfleet.containers.outside import Healths
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.secrets.keeper import Secrets
from lxcfleet.containers.secrets.telling import Telling
from lxcfleet.errors import Busy, FleetError, HostError, from_body
from lxcfleet.host.process import proc
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.containers import CheckItem
from lxcfleet.launcher.operations import CHECK
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.operations import now
from lxcfleet.runtime.soon import Soon
from lxcfleet.runtime.tasks import Tasks
from lxcfleet.spec.container.secrets import SecretUse, Then
from lxcfleet.spec.policies.rollout import RolloutSettings
from lxcfleet.spec.states import Health

log = logging.getLogger(__name__)

EXEC_SECONDS = 30.0
"""Seconds that a command inside may take."""
BUSY_SECONDS = 5.0
"""While another rollout is under way, restarts for secrets are tried again after so long."""
LOOK_SECONDS = 0.5


def waves(names: Sequence[str], policy: RolloutSettings) -> Iterator[tuple[str, ...]]:
    """The names in waves: canaries, then as many at a time as may be down. Pure."""
    left = list(names)
    size = policy.canaries.of(len(names)) or policy.max_unavailable.of(len(names))
    while left:
        yield tuple(left[:size])
        del left[:size]
        size = policy.max_unavailable.of(len(names))


class SecretChanges:
    """Tells containers of the values that they don't know of."""

    def __init__(
        self,
        secrets: Secrets,
        registry: Registry,
        healths: Healths,
        launcher: Launcher,
        bus: Bus,
        tasks: Tasks,
        policy: Callable[[], RolloutSettings],
        restart: Callable[[Sequence[str]], Awaitable[object]],
    ) -> None:
        """``restart``: begins a rollout that restarts these; raises Busy while there is another one."""
        self._secrets, self._registry, self._healths, self._launcher = secrets, registry, healths, launcher
        self._bus, self._policy, self._restart = bus, policy, restart
        self._begun: dict[str, str] = {}
        """The runs that a rollout was begun for, by container."""
        self._halted: dict[str, str] = {}
        """The runs that are not told after a wave that did not go well, until secrets change again."""
        self.telling: Telling | None = None
        """The waves of signals and commands that are under way, or were last."""
        self._tasks = tasks
        self._waiting: asyncio.Task[None] | None = None
        """Has restarts tried again that another rollout was in the way of."""
        self._soon = Soon(tasks, "secret-changes", self._work, "containers can't be told of their secrets")

    def kick(self) -> None:
        """Secrets may have changed: tell those that don't know."""
        self._halted.clear()
        self._soon.kick()

    def declared(self) -> None:
        """Others are declared, or the same anew: see to what is owed. What a wave that did not go well held back stays back,
        as no value has changed."""
        self._soon.kick()

    def began(self, container: Container) -> None:
        """A container began to run: values may have changed since it was prepared."""
        if self._secrets.is_late(container):
            self._soon.kick()

    async def _work(self) -> None:
        if late := [each for each in self._registry if self._secrets.is_late(each)]:
            for name, error in (await self._secrets.deliver(late)).items():
                log.error("%s: its secrets may be old: %s", name, str(error).replace("\n", "; "))
        owed = {each.name: uses for each in self._registry if (uses := self._secrets.owed(each))}
        restarts = [name for name, uses in owed.items() if any(use.on_change.then is Then.RESTART for use in uses)]
        told = {name: uses for name, uses in owed.items() if name not in restarts and not self._is_noted(self._halted, name)}
        if told:
            await self._tell(told)
        if fresh := [name for name in restarts if not self._is_noted(self._begun, name)]:
            try:
                await self._restart(fresh)
            except Busy:
                if self._waiting is None or self._waiting.done():
                    self._waiting = self._tasks.do("secret-restarts", self._again)
                return
            self._begun |= self._runs(fresh)

    async def _again(self) -> None:
        await asyncio.sleep(BUSY_SECONDS)
        self._soon.kick()

    def _runs(self, names: Sequence[str]) -> dict[str, str]:
        known = [self._registry[name] for name in names if name in self._registry]
        return {each.name: each.running.identity for each in known if each.running is not None}

    def _find(self, name: str) -> Container | None:
        if name not in self._registry:
            return None
        return self._registry[name]

    def _is_noted(self, noted: dict[str, str], name: str) -> bool:
        running = self._registry[name].running
        return running is not None and noted.get(name) == running.identity

    # -- signals and commands --------------------------------------------------------------------------------

    async def _tell(self, owed: dict[str, list[SecretUse]]) -> None:
        left = [*owed]
        course = Telling.of(owed, {use.secret for uses in owed.values() for use in uses}, self._policy())
        for wave in waves(left, self._policy()):
            self.telling = course = course.begin(wave)
            told = await asyncio.gather(*(self._tell_one(name, owed[name]) for name in wave))
            left = left[len(wave) :]
            self.telling = course = course.to(wave, "checked")
            bad = next(((name, why) for name, why in zip(wave, told, strict=True) if why), None)
            if bad := bad or (await self._gate(wave) if left else None):
                self._halted |= self._runs(left)
                self.telling = course.to([name for name in wave if name != bad[0]], "done").halt(*bad)
                self._bus.publish(SecretHalted(bad[1], len(left)))
                return
            self.telling = course = course.to(wave, "done")
        self.telling = replace(course, ended=now())

    async def _tell_one(self, name: str, uses: Sequence[SecretUse]) -> str:
        """Tell one container; gives what went wrong."""
        container = self._find(name)
        if container is None or container.running is None or container.busy is not None:
            return ""  # if it is being restarted, it knows them then
        present = self._secrets.digests(container)  # it may get others while a command tells it of these
        try:
            for change in dict.fromkeys(use.on_change for use in uses):
                if change.then is Then.SIGNAL:
                    self._send(container, container.running, change.signal)
                elif change.then is Then.EXEC:
                    await self._run(container, change.command)
        except (FleetError, OSError) as error:
            self._halted |= self._runs([name])
            return f"{name} could not be told: {str(error).splitlines()[0]}"
        self._secrets.note_told(container, uses, present)
        names = ", ".join(dict.fromkeys(use.secret for use in uses))
        self._bus.publish(SecretTold(name, f"{names}: {', '.join(dict.fromkeys(str(u.on_change.then) for u in uses))}"))
        return ""

    def _send(self, container: Container, running: Running, word: str) -> None:
        if not proc.send_signal(running.pid, running.monitor, signal.Signals[f"SIG{word}"]):
            raise HostError(f"{container.name} has ended")

    async def _run(self, container: Container, command: Sequence[str]) -> None:
        item: CheckItem = {
            "name": container.name, "command": [*command], "environment": {}, "timeout": EXEC_SECONDS,
        }  # fmt: skip
        answer = await self._launcher.ask(CHECK, item)
        if answer["error"]:
            raise from_body(answer["error"])
        if answer["status"]:
            raise HostError(f"{command[0]} ended with status {answer['status']}")
        if answer["status"] is None:
            raise HostError(f"{command[0]} did not end within {EXEC_SECONDS:g} s")

    async def _gate(self, wave: Sequence[str]) -> tuple[str, str] | None:
        """Wait until all of a wave have been well for long enough; gives one that is not, and the reason."""
        policy, began, runs = self._policy(), time.monotonic(), self._runs(wave)
        while True:
            waits: tuple[str, str] | None = None
            for name, run in runs.items():
                container = self._find(name)
                if container is None or container.running is None or container.running.identity != run:
                    if container is not None and container.busy is None and container.running is None:
                        return name, f"{name} ended after it was told"
                    continue  # somebody stopped, restarted or destroyed it
                if self._healths.of(container) not in (None, Health.HEALTHY):
                    waits = name, f"{name} is not healthy: {self._healths.reason(container)}"
            passed = time.monotonic() - began
            if not waits and passed >= policy.min_healthy_time:
                return None
            if waits and passed >= policy.healthy_deadline:
                return waits
            if self.telling is not None:
                said = waits[1] if waits else f"{wave[0]}: to be healthy for {policy.min_healthy_time:g} s"
                self.telling = replace(self.telling, waits_for=said)
            await self._healths.changed(min(LOOK_SECONDS, policy.min_healthy_time or LOOK_SECONDS))
