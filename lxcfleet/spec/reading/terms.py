"""The enumerations of specs and settings, and the bounds of their numbers. Values only."""

from __future__ import annotations

from enum import StrEnum

USUAL_LANGUAGE = "C.UTF-8"
"""The language that systemd inside takes by itself, too; without any, programs take all text for ASCII."""
RANGE_SIZE = 65536
"""How many uids (and gids) each unprivileged container has: all 16-bit ids."""

PIDS = 4096
"""The default limit of processes and threads in a container: far more than most containers need, and far less than a host
has process ids."""
MAX_PIDS = 1 << 22
"""The kernel's PID_MAX_LIMIT."""
MAX_MBIT = 100_000.0
"""The highest limit of bandwidth, in megabits per second. The packet filter can't count with more than 131,000."""
MAX_CPUS = 8192
"""The kernel's largest NR_CPUS."""
WEIGHT = 100
"""The weight that each cgroup has by itself (v2)."""
MAX_WEIGHT = 10_000
"""The highest weight that cgroup v2 knows."""
LIMITS = ("memory", "swap", "cpus", "cpu_weight", "io_weight", "io", "pids", "disk")
"""The fields that say how much a container may use. Names and ports have nothing to do with them."""
MAX_STOP_TIMEOUT = 86400.0
"""The longest time, in seconds, that a stop may take before it becomes a kill."""
MAX_ORDER = 1000
"""boot_order lies between this and its negative."""
MAX_GENERATION = 1_000_000
"""The highest number of a generation."""


class Init(StrEnum):
    """The kind of process 1."""

    SYSTEM = "system"
    """The host's systemd."""
    APP = "app"
    """The operator's one command, under a reaping init."""


class NetworkMode(StrEnum):
    """How a container is connected."""

    BRIDGE = "bridge"
    """The container is on the fleet's bridge, with an address of its own."""
    NONE = "none"
    """The container has a loopback interface only."""
    UPLINK = "uplink"
    """The container is on the network of one of the host's interfaces, as a machine beside the host."""
    HOST = "host"
    """The container uses the host's own interfaces: it has no address of its own, and nothing separates it from the host."""


class Addresses(StrEnum):
    """The source of the addresses of containers on the bridge."""

    OWN = "own"
    """lxcfleet: the bridge is its own."""
    DHCP = "dhcp"
    """The DHCP server of the network to which the operator's bridge belongs."""


class Affinity(StrEnum):
    """Which of the containers that share a port of the host a connection goes to."""

    NONE = "none"
    """Any one, by chance."""
    CLIENT = "client"
    """The same one for all connections of a client's address."""


class Victim(StrEnum):
    """The processes that are killed when a container's limit of memory is reached."""

    CONTAINER = "container"
    """All its processes, so the container ends."""
    PROCESS = "process"
    """The process that uses most. The others go on."""


class StopSignal(StrEnum):
    """The signals by which programs can be asked to end; which one is right depends on the program."""

    HUP = "HUP"
    INT = "INT"
    QUIT = "QUIT"
    TERM = "TERM"
    USR1 = "USR1"
    USR2 = "USR2"
    WINCH = "WINCH"
