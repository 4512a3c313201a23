"""The words that specs and settings take, and the bounds of their numbers. Values only."""

from __future__ import annotations

from enum import StrEnum

RANGE_SIZE = 65536
"""How many uids (and gids) each unprivileged container has: all that a 16-bit /etc/passwd can name."""

PIDS = 4096
"""How many processes and threads a container may have unless something else is asked for: far more than most
need, and far less than a host has numbers for."""
MAX_PIDS = 1 << 22
"""The kernel's PID_MAX_LIMIT."""
MAX_CPUS = 8192
"""The kernel's largest NR_CPUS."""
MAX_STOP_TIMEOUT = 86400.0
"""The longest time, in seconds, that a stop may take before it becomes a kill."""
MAX_ORDER = 1000
"""boot_order lies between this and its negative."""


class Init(StrEnum):
    """What runs as process 1."""

    SYSTEM = "system"
    """The host's systemd."""
    APP = "app"
    """The operator's one command, under a reaping init."""


class Network(StrEnum):
    """How a container is connected."""

    BRIDGE = "bridge"
    """To the fleet's bridge, with an address of its own."""
    NONE = "none"
    """Not at all: it has a loopback interface only."""
    HOST = "host"
    """It uses the host's own interfaces: no address of its own, and no wall between."""


class Addresses(StrEnum):
    """Where the bridge's containers have their addresses from."""

    OWN = "own"
    """From lxcfleet: the bridge is its own."""
    DHCP = "dhcp"
    """From the DHCP server of the network that the operator's bridge is part of."""


class StopSignal(StrEnum):
    """The signals that ask a program to end, as different programs want it."""

    HUP = "HUP"
    INT = "INT"
    QUIT = "QUIT"
    TERM = "TERM"
    USR1 = "USR1"
    USR2 = "USR2"
    WINCH = "WINCH"
