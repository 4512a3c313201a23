"""The handlers of calls about apps."""

from __future__ import annotations

from lxcfleet.api import calls
from lxcfleet.api.apps import (
    AddAppRequest,
    AppCheckRecord,
    AppRecord,
    AppSwitchRecord,
    BakeAppRequest,
    NamedAppsRequest,
    UseAppRequest,
)
from lxcfleet.api.records import OperationRecord
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.daemon.uses.apps import Apps
from lxcfleet.daemon.uses.baking import Baking
from lxcfleet.patch.apps import AppSwitch


class OfApps:
    """Handlers of calls about apps."""

    def __init__(self, apps: Apps, switch: AppSwitch, baking: Baking) -> None:
        self._apps, self._switch, self._baking = apps, switch, baking

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.APPS, self.apps)
        routes.json(calls.ADD_APP, self.add)
        routes.json(calls.VERIFY_APPS, self.verify)
        routes.json(calls.REMOVE_APPS, self.remove)
        routes.json(calls.USE_APP, self.use)
        routes.json(calls.BAKE_APP, self.bake)

    async def apps(self, _: None) -> list[AppRecord]:
        """See calls.APPS; likewise each handler the call of its name."""
        return await self._apps.records()

    async def add(self, ask: AddAppRequest) -> OperationRecord:
        return (await self._apps.add(ask)).record()

    async def verify(self, ask: NamedAppsRequest) -> list[AppCheckRecord]:
        return await self._apps.verify(ask)

    async def remove(self, ask: NamedAppsRequest) -> OperationRecord:
        return (await self._apps.remove(ask)).record()

    async def bake(self, ask: BakeAppRequest) -> OperationRecord:
        return (await self._baking.begin(ask)).record()

    async def use(self, ask: UseAppRequest) -> AppSwitchRecord:
        return await self._switch.use(ask)
