"""How much a container may receive and send per second, as the packet filter of the bridge holds it to. Pure.

Each limit is an object of the filter's, named after the container's port; what is above it is dropped, upon which TCP slows
down. As all of the filter's rules, limits hold for containers that plain lxc-start began, and while the daemon is away.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_BYTES_PER_MBIT = 125_000
_LEAST_BURST = 256 << 10
"""A network card's offloading hands 64 KiB over as one packet: several of them must have room."""
_BURST_SECONDS = 0.125


@dataclass(frozen=True)
class Bandwidth:
    """In megabits per second; 0: no limit."""

    receive: float = 0.0
    send: float = 0.0

    def _ways(self) -> Iterator[tuple[str, float]]:
        for way, mbit in (("received", self.receive), ("sent", self.send)):
            if mbit:
                yield way, mbit

    def elements(self, port: str) -> Mapping[tuple[str, str], list[str]]:
        """The elements of the maps for this port of the bridge, by family and name of the map."""
        return {("bridge", way): [f'"{port}" : "{port}_{way}"'] for way, _ in self._ways()}

    def added(self, port: str, table: str) -> list[str]:
        """The lines that make the limits that these elements name."""
        return [f"add limit bridge {table} {port}_{way} {{ {_rate(mbit)} }}" for way, mbit in self._ways()]

    def deleted(self, port: str, table: str) -> list[str]:
        """The lines that remove them."""
        return [f"delete limit bridge {table} {port}_{way}" for way, _ in self._ways()]


UNLIMITED = Bandwidth()


def _rate(mbit: float) -> str:
    rate = max(1, round(mbit * _BYTES_PER_MBIT))
    return f"rate over {rate} bytes/second burst {max(_LEAST_BURST, round(rate * _BURST_SECONDS))} bytes"


CHAINS = (
    "  map sent { type ifname : limit; }",
    "  map received { type ifname : limit; }",
    "  chain sending {",
    "    type filter hook prerouting priority -290; policy accept;",  # behind the guard
    "    limit name iifname map @sent drop",
    "  }",
    "  chain receiving {",
    "    type filter hook postrouting priority filter; policy accept;",
    "    limit name oifname map @received drop",
    "  }",
)
"""Lines of the bridge's table."""
