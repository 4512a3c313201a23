"""The interfaces of rooms that are built on this one: the network and the health of containers.

Both know containers, so this room can't import them. The daemon's wiring hands them in.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.states import Health


class Network(Protocol):
    """The fleet's network, as far as the life of a container involves it. Implemented in network.fleet."""

    @property
    def bridge(self) -> str:
        """The name of the bridge that containers are on."""

    def check_start(self, spec: Spec) -> None:
        """See that the host has the network that a container starts on, before it is stopped for that. Raises FleetError."""

    async def connect(self, spec: Spec) -> None:
        """Set up everything that a container needs before it starts. Raises FleetError."""

    def publish(self, container: Container) -> None:
        """Let a running container be found."""

    async def leave(self, container: Container, seconds: float | None = None) -> None:
        """Withdraw a container that is to be stopped, and wait for its drain time."""

    def set_frozen(self, container: Container, frozen: bool) -> None:
        """Note whether a container is frozen: a frozen one does not answer for its groups."""

    def look_if_frozen(self, container: Container) -> None:
        """Note whether it is frozen, by a look at the container itself."""

    def forget(self, name: str) -> None:
        """Forget a container that was destroyed."""

    async def check_new(self, count: int) -> None:
        """Refuse ``count`` new containers if they can't be connected. Raises FleetError."""

    async def check_static(self, wanted: Sequence[Spec]) -> None:
        """Refuse addresses that operators chose for these containers, if they can't have them. Raises FleetError."""

    async def check_ports(self, like: Spec, count: int) -> None:
        """Refuse ports of the host that ``count`` new containers like ``like`` can't have. Raises InvalidInput."""

    def check_names(self, like: Spec, names: Collection[str]) -> None:
        """Refuse new containers with these names, each like ``like``, that clash with what others are found by. Raises
        InvalidInput."""

    async def check_changed(self, changed: Sequence[tuple[Spec, Spec]]) -> None:
        """Refuse what containers can't have by their new specs: addresses, names, ports. ``changed``: former and new specs.

        Raises InvalidInput, HostError.
        """

    def place(self, spec: Spec, others: Sequence[Spec]) -> Spec:
        """The spec of a new container with addresses of its own. Raises NoCapacity."""

    def give_back(self, spec: Spec | None) -> None:
        """Free the addresses of a container that no longer exists. None: no spec says which addresses it had."""

    def expect(self, specs: Iterable[Spec]) -> None:
        """Prepare for the start of these."""

    async def release(self) -> None:
        """Remove what only connected containers need, if there are none."""

    def findings(self, count: int) -> list[Finding]:
        """Findings for and against so many more containers that are connected."""

    async def firewall_findings(self) -> list[Finding]:
        """Findings on what the host's firewalls do to containers."""


class Healths(Protocol):
    """The health of containers. Implemented in health.prober."""

    def of(self, container: Container) -> Health | None:
        """The container's health; None if it does not run."""

    def matures(self, container: Container) -> float | None:
        """Seconds until it counts as healthy by its age alone, without an event; None: an event tells."""

    def reason(self, container: Container) -> str:
        """The reason why it is not healthy, from its checks; empty if it is healthy or no check gave one."""

    async def changed(self, seconds: float) -> None:
        """Return when the health of some container changed, or after that many seconds."""

    def healthy_seconds(self, container: Container) -> float:
        """Seconds for which it has been healthy without a break; 0 if it is not."""
