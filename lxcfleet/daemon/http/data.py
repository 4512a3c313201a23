"""The handlers of calls about volumes, secrets, and what is on the disk."""

from __future__ import annotations

from lxcfleet.api import calls
from lxcfleet.api.disk import DiffRecord, DiffRequest, DiskRecord, DiskRequest
from lxcfleet.api.records import (
    OperationRecord,
    SecretRecord,
    VolumeRecord,
)
from lxcfleet.api.requests import (
    CreateVolumeRequest,
    RefreshSecretsRequest,
    RemoveVolumesRequest,
)
from lxcfleet.containers.measuring.disk import DiskUse
from lxcfleet.daemon.http.routes import Routes
from lxcfleet.daemon.uses.secrets import SecretCalls
from lxcfleet.daemon.uses.volumes import Volumes


class OfVolumes:
    """Handlers of calls about volumes."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.VOLUMES, self.volumes)
        routes.json(calls.VOLUME, self.volume)
        routes.json(calls.CREATE_VOLUME, self.create)
        routes.json(calls.REMOVE_VOLUMES, self.remove)

    async def volumes(self, _: None) -> list[VolumeRecord]:
        """See calls.VOLUMES; likewise each handler the call of its name."""
        return self._volumes.records()

    async def volume(self, name: str) -> VolumeRecord:
        return await self._volumes.info(name)

    async def create(self, ask: CreateVolumeRequest) -> OperationRecord:
        return (await self._volumes.create(ask)).record()

    async def remove(self, ask: RemoveVolumesRequest) -> OperationRecord:
        return (await self._volumes.remove(ask)).record()


class OfSecrets:
    """Handlers of calls about secrets."""

    def __init__(self, secrets: SecretCalls) -> None:
        self._secrets = secrets

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.SECRETS, self.secrets)
        routes.json(calls.REFRESH_SECRETS, self.refresh)

    async def secrets(self, _: None) -> list[SecretRecord]:
        """See calls.SECRETS; likewise each handler the call of its name."""
        return self._secrets.records()

    async def refresh(self, ask: RefreshSecretsRequest) -> OperationRecord:
        return self._secrets.refresh(ask).record()


class OfDisk:
    """Handlers of calls about what containers have on the disk."""

    def __init__(self, disk: DiskUse) -> None:
        self._disk = disk
        self._for_readers = disk.for_readers()

    def bind(self, routes: Routes) -> None:
        """Have them answered."""
        routes.json(calls.DU, self.du, for_readers=self._for_readers.used)
        routes.json(calls.DIFF, self.diff, for_readers=self._for_readers.diff)

    async def du(self, ask: DiskRequest) -> list[DiskRecord]:
        """See calls.DU; likewise each handler the call of its name."""
        return await self._disk.used(ask)

    async def diff(self, ask: DiffRequest) -> DiffRecord:
        return await self._disk.diff(ask)
