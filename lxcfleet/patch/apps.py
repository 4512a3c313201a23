"""Another release of an app for containers, and the way back: a rollout that changes specs, with its waves, gates and undo.

What each container had before is noted on disk before anything is changed, so `app undo` knows it for those that do not run,
too, and after a reboot.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lxcfleet.api.apps import AppSwitchRecord, UseAppRequest
from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.containers.requests.changing import Changing
from lxcfleet.errors import Broken, HostError, InvalidInput, WrongState
from lxcfleet.host.kernel import tree
from lxcfleet.patch.rollout.orders import Orders
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import now, result_record
from lxcfleet.spec.container.apps import AppUse, parse_app
from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.selection import Selection, natural_order
from lxcfleet.units import some

log = logging.getLogger(__name__)

_NAMED = 5


@dataclass(frozen=True)
class Switched:
    """One container's last change of its app."""

    former: str | None
    """The release that it had, with its place; None: no app."""
    wanted: str | None
    at: str
    """When that was, the same for all that were changed together."""


class AppSwitch:
    """``app use`` and ``app undo``."""

    def __init__(
        self, paths: Paths, registry: Registry, changing: Changing, orders: Orders, former: Callable[[], set[str]]
    ) -> None:
        """``former``: gives the apps that the members of the last rollout had before."""
        self._paths, self._registry, self._changing, self._orders = paths, registry, changing, orders
        self._former = former

    def needed(self) -> set[str]:
        """The releases, as NAME@VERSION, that `app undo` and `rollout undo` may need."""
        texts = {each.former for each in self._noted().values() if each.former is not None} | self._former()
        return {parse_app(text).release for text in texts}

    async def use(self, ask: UseAppRequest) -> AppSwitchRecord:
        """Give the chosen containers another release: those that run in a rollout, the others at once. Without a release
        they get the one that they had before. Raises FleetError; then nothing was changed."""
        await self._registry.observe()
        wanted = self._backward(ask.selection) if ask.release is None else self._forward(ask)
        specs = {
            name: replace(spec, app=app) for name, app in wanted.items()
            if (spec := _changeable(self._registry[name])).app != app
        }  # fmt: skip
        moved = [self._registry[name] for name in specs]
        apps = {each.name: _pair(_changeable(each), specs[each.name]) for each in moved}
        planned = {each.container.name: each for each in await self._changing.check(moved, specs, askable())}
        running = {each.name: specs[each.name] for each in moved if each.running is not None}
        resting = {name: (planned[name].former, spec) for name, spec in specs.items() if name not in running}
        results, rollout = [], None
        if specs and not ask.dry_run:
            if running:
                self._orders.refuse_second()
            self._note(apps)
            if running:
                rollout = await self._orders.begin_change(running, ask.policy, auto_revert=ask.revert, resting=resting)
            results = await self._changing.carry_out([planned[name] for name in resting])
        return {
            "changed": bool(specs),
            "dry_run": ask.dry_run,
            "apps": {name: list(pair) for name, pair in apps.items()},
            "results": [result_record(result) for result in results],
            "restarts": [*running],
            "rollout": rollout,
        }

    def _forward(self, ask: UseAppRequest) -> dict[str, AppUse | None]:
        """The app that each chosen container is to have. One that has it at another place keeps that place."""
        asked = parse_app(ask.release or "")
        placed = ":" in (ask.release or "")
        chosen = self._registry.choose(ask.selection)
        other = [each.name for each in chosen if (app := _changeable(each).app) is not None and app.name != asked.name]
        if other:
            raise InvalidInput(
                f"nothing was changed: some of them have another app than {asked.name}",
                why=f"these have: {some(other, _NAMED)}",
                hint=f"choose others; or replace it: lxcfleet set SEL app={asked}",
            )
        found: dict[str, AppUse | None] = {}
        for each in chosen:
            has = _changeable(each).app
            found[each.name] = asked if has is None or placed else replace(asked, target=has.target)
        return found

    def _backward(self, selection: Selection) -> dict[str, AppUse | None]:
        """The app that each container had before: of the chosen ones, or of those that were changed together last."""
        noted = {
            name: each for name, each in self._noted().items()
            if name in self._registry and _text(self._registry[name].wanted) == each.wanted
        }  # fmt: skip
        if selection.everything and not selection.narrow:
            last = max((each.at for each in noted.values()), default="")
            chosen = [name for name, each in noted.items() if each.at == last]
        else:
            chosen = [each.name for each in self._registry.choose(selection)]
        without = [name for name in chosen if name not in noted]
        if without or not chosen:
            raise WrongState(
                "there is nothing to undo", why=f"not known: what {', '.join(without[:_NAMED])} had before their app"
                if without else "no container has the app that `app use` gave it last",
                hint="say which release they are to have: lxcfleet app use SEL NAME@VERSION",
            )  # fmt: skip
        return {name: _parsed(noted[name].former) for name in natural_order(chosen)}

    # -- what they had before --------------------------------------------------------------------------------

    def _noted(self) -> dict[str, Switched]:
        try:
            data: Mapping[str, Any] = ondisk.record(self._paths.app_history)
            found = {name: Switched(*each) for name, each in data.items()}
            for each in found.values():
                _parsed(each.former)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError, InvalidInput) as error:
            log.error("%s can't be read: %s. What containers had before is not known", self._paths.app_history, error)
            return {}
        return found

    def _note(self, apps: Mapping[str, tuple[str | None, str | None]]) -> None:
        at = now()
        kept = {name: each for name, each in self._noted().items() if name in self._registry}
        noted = {**kept, **{name: Switched(former, wanted, at) for name, (former, wanted) in apps.items()}}
        try:
            self._paths.apps.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps({name: [each.former, each.wanted, each.at] for name, each in noted.items()})
            tree.write(self._paths.app_history, text, sync=True)
        except OSError as error:
            raise HostError.from_os_error("the former apps can't be written down", error) from error


def _changeable(container: Container) -> Spec:
    if container.wanted is None:
        raise container.problem or Broken(f"{container.name} is broken")
    return container.wanted


def _pair(former: Spec, wanted: Spec) -> tuple[str | None, str | None]:
    return _text(former), _text(wanted)


def _text(spec: Spec | None) -> str | None:
    return None if spec is None or spec.app is None else str(spec.app)


def _parsed(text: str | None) -> AppUse | None:
    return None if text is None else parse_app(text)
