"""What the containers' room needs of rooms that are built on it: the network and the health of containers.

Both know containers, so this room can't know them. The daemon's wiring hands them in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface
from typing import Protocol

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.spec.spec import Spec
from lxcfleet.spec.states import Health


class Network(Protocol):
    """The fleet's network, as far as the life of a container goes. network.fleet has it."""

    @property
    def bridge(self) -> str:
        """The name of the bridge that containers are on."""

    async def connect(self, spec: Spec) -> None:
        """Have all that a container needs which is about to start. Raises FleetError."""

    def publish(self, container: Container) -> None:
        """Let a container that runs be found."""

    async def leave(self, container: Container, seconds: float | None = None) -> None:
        """Withdraw a container that is to be stopped, and wait for its drain time."""

    def set_frozen(self, container: Container, frozen: bool) -> None:
        """A frozen container stands for no group."""

    def look_if_frozen(self, container: Container) -> None:
        """Take that from the container itself."""

    def forget(self, name: str) -> None:
        """The container is destroyed."""

    async def check_new(self, count: int) -> None:
        """Refuse so many new containers if they can't be connected. Raises FleetError."""

    async def check_ports(self, like: Spec, count: int) -> None:
        """Refuse ports of the host that ``count`` new containers like ``like`` can't have. Raises InvalidInput."""

    async def check_changed(self, changed: Sequence[tuple[Spec, Spec]]) -> None:
        """Refuse ports of the host that containers can't have by their new specs; pairs of former and new ones.

        Raises InvalidInput, HostError.
        """

    def place(self, spec: Spec, others: Sequence[Spec]) -> Spec:
        """The spec of a new container with addresses of its own. Raises NoCapacity."""

    def give_back(self, address: IPv4Interface | None) -> None:
        """The address of a container that is gone is free. None: no spec says which address it had."""

    def expect(self, specs: Iterable[Spec]) -> None:
        """These will start soon."""

    async def release(self) -> None:
        """Take away what only connected containers need, where there are none."""

    def findings(self) -> list[Finding]:
        """What the host lacks for containers to be connected."""


class Healths(Protocol):
    """The health of containers. health.prober has it."""

    def of(self, container: Container) -> Health | None:
        """How the container is; None if it does not run."""

    def reason(self, container: Container) -> str:
        """Why it is not healthy, as far as a check said; empty while all is well."""

    async def changed(self, seconds: float) -> None:
        """Return when the health of some container changed, or after so many seconds."""

    def healthy_seconds(self, container: Container) -> float:
        """For how long it has been healthy without a break; 0 if it is not."""
