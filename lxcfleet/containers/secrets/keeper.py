"""The secrets of all containers: which there are, whether their values are there, and who has which.

Values are fetched and written by children of the launcher (data.secrets). This part knows references and digests.

A container's file ``secrets.json`` has the digests of the values that its program knows: those at its start, and those
that it was told of since. What it has and does not know is owed to it (containers.secrets.new_values), whatever was killed
in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.containers.desired import Lack
from lxcfleet.containers.events import SecretChanged, SecretFailed, SecretsDeclared
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.secrets.declarations import Declarations, Declared, Sources
from lxcfleet.data import secrets
from lxcfleet.errors import FleetError, HostError, from_body
from lxcfleet.host.facts import swap
from lxcfleet.host.kernel import mounts
from lxcfleet.launcher.client import Launcher
from lxcfleet.launcher.items.data import DeliverItem, FetchItem, TidyItem
from lxcfleet.launcher.operations import DELIVER_SECRETS, FETCH_SECRET, TIDY_SECRETS
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Bus
from lxcfleet.spec.container.secrets import SecretSource, SecretUse, Then
from lxcfleet.spec.container.spec import Spec

log = logging.getLogger(__name__)

AT_ONCE = 8
"""So many sources are asked at the same moment."""
RETRY_SECONDS = 60.0
"""A source that is asked again by itself, and failed, is asked again after so long, or after its own time if that is less."""
MISSING_SECONDS = 15.0
"""One whose value was never there, so that containers wait for it, is asked again after so long."""
LOOK_SECONDS = 30.0
"""The longest time between two looks at what is due."""


@dataclass(frozen=True)
class Value:
    """The known facts about the value of one secret."""

    source: SecretSource
    digest: str = ""
    """Empty: it was never there."""
    fetched: float = 0.0
    """When its source was asked last, in seconds since the epoch."""
    changed: float = 0.0
    problem: str = ""
    """Why its source could not be asked last; the former value holds."""


class Secrets:
    """All secrets of this host."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        launcher: Launcher,
        bus: Bus,
        settings: Sources,
        fleets: Callable[[], Mapping[str, Sources]],
    ) -> None:
        """``settings``: what the host's settings declare; ``fleets``: gives what each fleet's file declares, by fleet."""
        self._paths, self._registry, self._launcher, self._bus = paths, registry, launcher, bus
        self._declarations = Declarations(registry, settings, fleets)
        self._values: dict[str, Value] = {}
        self._tries: defaultdict[str, int] = defaultdict(int)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._present: dict[str, dict[str, str]] = {}
        """Digests of the values that each container has now, by file."""
        self._wake = asyncio.Event()
        self._changes = 0
        """How often a value became another one."""
        self._as_of: dict[str, int] = {}
        """That count, when each container's values were made ready for its start."""
        self._gone: set[str] = set()
        """Containers that are being destroyed, or were."""
        self._leaving: set[str] = set()
        """Those of them whose directory is still there."""
        self._tidying = asyncio.Lock()

    def take_over(self, settings: Sources) -> None:
        """Take over what changed settings declare."""
        self._declarations.settings = settings
        self.have_others()

    def have_others(self) -> None:
        """Other secrets are declared than before: containers may have waited for one of them."""
        self._bus.publish(SecretsDeclared())
        self._wake.set()

    # -- which there are -----------------------------------------------------------------------------------

    def declared(self) -> list[Declared]:
        """All that are declared: the host's first."""
        return self._declarations.all()

    def find(self, name: str, spec: Spec) -> list[tuple[secrets.Item, SecretSource]]:
        """Each secret of a container with its source; ``name``: for complaints. Raises NotFound."""
        return self._declarations.find(name, spec)

    def users(self, keys: Collection[str] | None = None) -> dict[str, list[Container]]:
        """The containers that have each secret, by its key; ``keys``: of these alone."""
        return self._declarations.users(keys)

    def value(self, key: str) -> Value | None:
        """The known facts about the value."""
        return self._values.get(key)

    # -- fetching ------------------------------------------------------------------------------------------

    async def ready(self, name: str, spec: Spec) -> list[Any]:
        """Have the values of all of a container's secrets there, before it starts. Gives what its preparation takes.

        Raises WrongState that names the secret which is missing, and NotFound if it is declared nowhere.
        """
        self._gone.discard(name)
        found = self.find(name, spec)
        sources = {item.key: source for item, source in found}
        tried = await asyncio.gather(*(self._have(*each) for each in sources.items()), return_exceptions=True)
        for key, outcome in zip(sources, tried, strict=True):
            if isinstance(outcome, FleetError):
                raise secrets.missing(key, outcome) from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        return [item.to_json() for item, _ in found]

    waived = False

    async def look(self, spec: Spec) -> None:
        """See Prerequisite: ask for the values that are not there."""
        if spec.secrets:
            with contextlib.suppress(FleetError):
                await self.ready(spec.name, spec)

    def lack(self, spec: Spec) -> Lack | None:
        """See Prerequisite."""
        if not spec.secrets:
            return None
        try:
            found = self.find(spec.name, spec)
        except FleetError as error:
            return Lack(error.message.partition(": ")[2])
        for item, source in found:
            known = self._values.get(item.key)
            if known is not None and known.source == source and known.problem and not known.digest:
                return Lack(f"secret {item.key}: {known.problem}")
        return None

    def starts(self, name: str) -> None:
        """A container gets the values as they are, and its program knows these."""
        self._present.pop(name, None)
        self._as_of[name] = self._changes

    def is_late(self, container: Container) -> bool:
        """Whether values may have changed since a running container got its own, so that nobody gave it the new ones."""
        has = container.running is not None and container.spec is not None and bool(container.spec.secrets)
        return has and container.name not in self._present and self._as_of.get(container.name) != self._changes

    async def _have(self, key: str, source: SecretSource) -> None:
        """Have a value there. Of many that wait for the same source one asks, for all."""
        before = self._tries[key]
        async with self._locks[key]:
            known = self._values.get(key)
            if known is not None and known.source == source:
                if known.digest and not known.problem:
                    return
                if self._tries[key] != before and not known.digest:
                    raise HostError(known.problem)
            await self._ask(key, source, anew=False)

    async def fetch(self, key: str, source: SecretSource) -> bool:
        """Ask the source anew; gives whether the value is another one. Raises FleetError: then the former one holds."""
        async with self._locks[key]:
            return await self._ask(key, source, anew=True)

    async def _ask(self, key: str, source: SecretSource, *, anew: bool) -> bool:
        before = self._values.get(key)
        async with self._slots:
            try:
                item: FetchItem = {"key": key, "source": source.to_json(), "anew": anew}
                answer = await self._launcher.ask(FETCH_SECRET, item)
                if answer["error"]:
                    raise from_body(answer["error"])
            except FleetError as error:
                self._failed(key, source, before, error)
                raise
            finally:
                self._tries[key] += 1
        now = time.time()
        changed = before is None or before.digest != answer["digest"]
        self._values[key] = Value(source, answer["digest"], now, now if changed or before is None else before.changed)
        self._changes += changed
        self._wake.set()
        return changed if before is not None and before.digest else bool(answer["changed"])

    def _failed(self, key: str, source: SecretSource, before: Value | None, error: FleetError) -> None:
        problem = ": ".join(part for part in (error.message, error.why) if part)
        known = before if before is not None else Value(source)
        if before is not None and before.source != source:
            known = Value(source)  # the value of another source does not count
        self._values[key] = replace(known, fetched=time.time(), problem=problem)
        if before is None or before.problem != problem:
            self._bus.publish(SecretFailed(key, problem, stays=bool(known.digest)))

    # -- who has which -------------------------------------------------------------------------------------

    async def deliver(self, containers: Iterable[Container]) -> dict[str, FleetError]:
        """Give running containers the present values. Gives the failures by container: these have their former values."""
        items: list[DeliverItem] = []
        failures: dict[str, FleetError] = {}
        for each in containers:
            if each.running is None or each.spec is None or not each.spec.secrets:
                continue
            try:
                found = [item.to_json() for item, _ in self.find(each.name, each.spec)]
            except FleetError as error:
                failures[each.name] = error
            else:
                items.append({"name": each.name, "first_id": each.spec.first_id, "secrets": found})
        if not items:
            return failures
        try:
            answers = await self._launcher.ask_large(DELIVER_SECRETS, items)
        except FleetError as error:
            return {**failures, **{item["name"]: error for item in items}}
        for answer in answers:
            if answer["error"]:
                failures[answer["name"]] = from_body(answer["error"])
            else:
                self._present[answer["name"]] = answer["digests"]
        return failures

    async def renew(self, keys: Collection[str]) -> dict[str, bool | FleetError]:
        """Ask the sources of these secrets anew, and give what changed to all containers that run. Gives for each key
        whether its value is another one, or why it could not be fetched."""
        sources = {each.key: each.source for each in self.declared() if each.key in keys}
        tried = await asyncio.gather(*(self.fetch(*each) for each in sources.items()), return_exceptions=True)
        found: dict[str, bool | FleetError] = {}
        for key, outcome in zip(sources, tried, strict=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, FleetError):
                raise outcome
            found[key] = outcome
        users = self.users([key for key, outcome in found.items() if not isinstance(outcome, FleetError)])
        chosen = {each.name: each for each in (c for some in users.values() for c in some)}
        failures = await self.deliver(chosen.values())
        for name, error in failures.items():
            log.error("%s: it has its former secrets: %s", name, str(error).replace("\n", "; "))
        for key, outcome in found.items():
            mine = [each.name for each in users.get(key, ()) if each.running is not None and each.name not in failures]
            if outcome is True:
                self._bus.publish(SecretChanged(key, len(mine)))
            broken = [failures[each.name] for each in users.get(key, ()) if each.name in failures]
            if broken:
                found[key] = broken[0]
        return found

    def owed(self, container: Container) -> list[SecretUse]:
        """The secrets of a running container whose present values its program does not know, and is to be told of."""
        present = self._present.get(container.name)
        if container.running is None or container.spec is None or present is None:
            return []
        known = secrets.known(self._paths, container.name)
        return [
            use for use in container.spec.secrets
            if use.target in present and use.target in known and present[use.target] != known[use.target]
            and use.on_change.then is not Then.NONE
        ]  # fmt: skip

    def digests(self, container: Container) -> Mapping[str, str]:
        """Digests of the values that a container has at this moment, by file."""
        return self._present.get(container.name, {})

    def note_told(self, container: Container, uses: Sequence[SecretUse], present: Mapping[str, str]) -> None:
        """Its program knows these now, with the values that the container had when it was told: see ``digests``."""
        known = secrets.known(self._paths, container.name)
        known |= {use.target: present[use.target] for use in uses if use.target in present}
        try:
            secrets.note_known(self._paths, container.name, known)
        except OSError as error:
            log.error("%s: that it was told of its secrets can't be noted: %s", container.name, error)

    def findings(self) -> list[Finding]:
        """The findings of `lxcfleet doctor` about secrets."""
        found = []
        for declared in self.declared():
            value = self._values.get(declared.key)
            if value is not None and value.problem:
                message = f"the secret {declared.key} can't be fetched: {value.problem}"
                stays = "the former value stays" if value.digest else "containers that have it don't start"
                found.append(Finding("secrets", "warning", message, hint=stays))
        options = mounts.options_of(str(self._paths.secrets))
        swaps = swap.unencrypted() if options and "noswap" not in options else []
        if swaps:
            message = f"secrets may be written to swap that is not encrypted: {', '.join(swaps)}"
            found.append(Finding("secrets", "warning", message, hint="encrypt it; kernels from 6.4 on have noswap"))
        return found

    # -- beginning and end ---------------------------------------------------------------------------------

    async def tidy_up(self) -> None:
        """Remove what a crash left of containers that are gone."""
        having = [each.name for each in self._registry if _has(each)]
        if self._paths.secrets.exists():
            try:
                await self._tidy({"gone": [], "only": having, "last": not having})
            except FleetError as error:
                log.error("can't clean up: %s", error)

    async def go_on(self) -> None:
        """Go on where an earlier daemon stopped: those that run have the present values, and what is owed can be told."""
        running = [each for each in self._registry if _has(each) and each.running is not None]
        for each in running:
            if each.spec is not None:
                try:
                    await self.ready(each.name, each.spec)
                except FleetError as error:
                    log.error("%s: %s", each.name, str(error).replace("\n", "; "))
        for name, failure in (await self.deliver(running)).items():
            log.error("%s: its secrets can't be looked at: %s", name, str(failure).replace("\n", "; "))

    async def forget(self, name: str) -> None:
        """Remove what a container that does not exist any more had. Raises FleetError."""
        self._present.pop(name, None)
        self._as_of.pop(name, None)
        self._gone.add(name)
        self._leaving.add(name)
        async with self._tidying:  # of many that go at once one has all of them removed, and the last sees that none is left
            names = sorted(self._leaving)
            self._leaving.clear()
            if not self._paths.secrets.exists():  # in a fleet without secrets nobody's are looked for
                return
            others = any(_has(each) for each in self._registry if each.name not in self._gone)
            there = any((self._paths.secrets / each).exists() for each in names)
            if not there and others:
                return
            await self._tidy({"gone": names, "only": None, "last": not others})
            if not others:
                self.distrust()

    async def _tidy(self, item: TidyItem) -> None:
        answer = await self._launcher.ask(TIDY_SECRETS, item)
        if answer["error"]:
            raise from_body(answer["error"])

    def distrust(self) -> None:
        """Values that were there may be gone: see to it at the next start."""
        self._values = {key: replace(each, digest="") for key, each in self._values.items()}

    async def run(self) -> None:
        """Ask those sources again that want that, for ever."""
        while True:
            self._wake.clear()
            now = time.time()
            used = self.users()
            due = {each.key: self._due(each) for each in self.declared() if each.key in used}
            if late := [key for key, moment in due.items() if moment <= now]:
                await self.renew(late)
                continue
            seconds = min([LOOK_SECONDS, *(moment - now for moment in due.values())])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), seconds)

    def _due(self, declared: Declared) -> float:
        known = self._values.get(declared.key)
        if known is None:
            return float("inf")  # it is fetched when a container starts that has it
        if known.problem and not known.digest:
            return known.fetched + MISSING_SECONDS
        refresh = declared.source.refresh or float("inf")
        return known.fetched + (min(refresh, RETRY_SECONDS) if known.problem and declared.source.refresh else refresh)


def _has(container: Container) -> bool:
    """Whether it has secrets, by its spec or that of its run."""
    return any(spec is not None and spec.secrets for spec in (container.spec, container.wanted))
