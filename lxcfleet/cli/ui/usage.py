"""The containers' use of resources, as rates and as a table. Pure: from two readings to lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, TypeVar

from lxcfleet.api.records import ContainerUsageRecord, UsageRecord
from lxcfleet.cli.ui.output import printable, size
from lxcfleet.spec.selection import natural_order

T = TypeVar("T")


class UsageRow(TypedDict):
    """One container. None: not known, as the container does not run, is on no bridge, or has only one reading so far."""

    name: str
    state: str
    health: str | None
    cpu_percent: float | None
    """100: one processor."""
    cpus_limit: float | None
    memory_bytes: int | None
    memory_limit_bytes: int | None
    processes: int | None
    processes_limit: int | None
    io_read_per_second: float | None
    """In bytes, like the three values that follow."""
    io_written_per_second: float | None
    net_received_per_second: float | None
    net_sent_per_second: float | None
    throttled_percent: float | None
    """The part of the time for which its limit kept it from a processor that it wanted; more than 100 if several waited."""
    cpu_waited_percent: float | None
    """The part of the time in which some of its processes waited for processors; in the two that follow for memory and block
    devices (PSI). Without cgroup v2 the host does not count that."""
    memory_waited_percent: float | None
    io_waited_percent: float | None


FIELDS = tuple(UsageRow.__annotations__)

_ORDER: dict[str, Callable[[UsageRow], float | None]] = {
    "cpu": lambda row: row["cpu_percent"],
    "memory": lambda row: row["memory_bytes"],
    "processes": lambda row: row["processes"],
    "io": lambda row: _sum(row["io_read_per_second"], row["io_written_per_second"]),
    "net": lambda row: _sum(row["net_received_per_second"], row["net_sent_per_second"]),
    "throttled": lambda row: row["throttled_percent"],
    "waited": lambda row: _most(row["cpu_waited_percent"], row["memory_waited_percent"], row["io_waited_percent"]),
}
ORDERS = (*_ORDER, "name", "state")
"""The orders in which rows can be sorted."""


def rows(before: UsageRecord | None, now: UsageRecord) -> list[UsageRow]:
    """The rates of each container between the two readings. Without a former reading there are no rates."""
    former = {} if before is None else {record["name"]: record for record in before["containers"]}
    seconds = 0.0 if before is None else now["time"] - before["time"]
    return [_row(former.get(record["name"]), record, seconds) for record in now["containers"]]


def _row(before: ContainerUsageRecord | None, now: ContainerUsageRecord, seconds: float) -> UsageRow:
    known = before if before is not None and before["run"] == now["run"] and seconds > 0 else None

    def rate(read: Callable[[ContainerUsageRecord], float | None]) -> float | None:
        old, new = None if known is None else read(known), read(now)
        return None if old is None or new is None else max(0.0, new - old) / seconds

    def share(read: Callable[[ContainerUsageRecord], float | None]) -> float | None:
        return None if (value := rate(read)) is None else round(value * 100, 1)

    return {
        "name": now["name"],
        "state": now["state"],
        "health": now["health"],
        "cpu_percent": share(lambda record: record["cpu_seconds"]),
        "cpus_limit": now["cpus_limit"],
        "memory_bytes": now["memory_bytes"],
        "memory_limit_bytes": now["memory_limit_bytes"],
        "processes": now["processes"],
        "processes_limit": now["processes_limit"],
        "io_read_per_second": _whole(rate(lambda record: record["io_read_bytes"])),
        "io_written_per_second": _whole(rate(lambda record: record["io_written_bytes"])),
        "net_received_per_second": _whole(rate(lambda record: record["net_received_bytes"])),
        "net_sent_per_second": _whole(rate(lambda record: record["net_sent_bytes"])),
        "throttled_percent": share(lambda record: record["throttled_seconds"]),
        "cpu_waited_percent": share(lambda record: record["pressure"].get("cpu")),
        "memory_waited_percent": share(lambda record: record["pressure"].get("memory")),
        "io_waited_percent": share(lambda record: record["pressure"].get("io")),
    }


def _whole(value: float | None) -> float | None:
    return None if value is None else round(value)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None and second is None else (first or 0) + (second or 0)


def _most(*values: float | None) -> float | None:
    return max((value for value in values if value is not None), default=None)


def in_order(found: Sequence[UsageRow], order: str, *, reverse: bool = False) -> list[UsageRow]:
    """The rows sorted: by name or state ascending, by numbers with the largest first. Unknown values come last."""
    by_name = sorted(found, key=_place({row["name"] for row in found}))
    if order == "name":
        return by_name[::-1] if reverse else by_name
    if order == "state":
        return sorted(by_name, key=lambda row: row["state"], reverse=reverse)
    value = _ORDER[order]
    known = [row for row in by_name if value(row) is not None]
    known.sort(key=lambda row: value(row) or 0, reverse=not reverse)
    return known + [row for row in by_name if value(row) is None]


def _place(names: set[str]) -> Callable[[UsageRow], int]:
    places = {name: number for number, name in enumerate(natural_order(names))}
    return lambda row: places[row["name"]]


_COLUMNS: Mapping[str, tuple[bool, Callable[[UsageRow], str]]] = {
    "NAME": (False, lambda row: printable(row["name"])),
    "STATE": (False, lambda row: printable(row["state"])),
    "HEALTH": (False, lambda row: printable(row["health"] or "")),
    "CPU %": (True, lambda row: _decimal(row["cpu_percent"])),
    "OF": (True, lambda row: "" if row["cpus_limit"] is None else f"{row['cpus_limit'] * 100:g}"),
    "MEMORY": (True, lambda row: size(row["memory_bytes"])),
    "LIMIT": (True, lambda row: size(row["memory_limit_bytes"])),
    "PROCS": (True, lambda row: "" if row["processes"] is None else str(row["processes"])),
    "MAX": (True, lambda row: "" if row["processes_limit"] is None else str(row["processes_limit"])),
    "READ/S": (True, lambda row: _bytes(row["io_read_per_second"])),
    "WRITTEN/S": (True, lambda row: _bytes(row["io_written_per_second"])),
    "RECEIVED/S": (True, lambda row: _bytes(row["net_received_per_second"])),
    "SENT/S": (True, lambda row: _bytes(row["net_sent_per_second"])),
    "THROTTLED %": (True, lambda row: _decimal(row["throttled_percent"])),
    "WAITED: CPU %": (True, lambda row: _decimal(row["cpu_waited_percent"])),
    "MEMORY %": (True, lambda row: _decimal(row["memory_waited_percent"])),
    "IO %": (True, lambda row: _decimal(row["io_waited_percent"])),
}
_WHERE_COUNTED = ("THROTTLED %", "WAITED: CPU %", "MEMORY %", "IO %")
"""Columns that are left out where no container has a value: not each host counts that."""
"""For each column its heading, whether it holds numbers, and the function that gives a row's cell."""


def table(found: Sequence[UsageRow]) -> list[str]:
    """The heading and one line for each container, aligned."""
    columns = []
    for heading, (right, text) in _COLUMNS.items():
        values = [text(row) for row in found]
        if heading in _WHERE_COUNTED and not any(values):
            continue
        cells = [heading, *(value or "-" for value in values)]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) if right else cell.ljust(width) for cell in cells])
    return ["  ".join(cells).rstrip() for cells in zip(*columns, strict=True)]


def summary(now: UsageRecord, found: Sequence[UsageRow]) -> str:
    """One line about the host and all of these containers together."""
    host = now["host"]
    running = sum(row["memory_bytes"] is not None for row in found)
    cpu = sum(row["cpu_percent"] or 0 for row in found)
    used = sum(row["memory_bytes"] or 0 for row in found)
    swap = host["swap_total_bytes"]
    swapped = f", swap {size(swap - host['swap_free_bytes'])} of {size(swap)}" if swap else ""
    return (
        f"{running} of {len(found)} running  cpu {cpu:.1f} of {host['processors'] * 100} %  memory {size(used)}; "
        f"host has {size(host['memory_available_bytes'])} of {size(host['memory_total_bytes'])} free{swapped}"
    )


def _decimal(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _bytes(value: float | None) -> str:
    return "" if value is None else "0" if value < 1 else size(round(value))
