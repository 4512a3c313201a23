"""The benchmark's figures, held against the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the result. ``value`` is held against ``limit``; both have ``unit``."""

    what: str
    ours: str
    peer: str
    value: float
    unit: str
    limit: float

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """The row for the file of results."""
        return {**asdict(self), "met": self.met}


def rows(samples: Mapping[str, Sequence[float]], count: int, leftovers: int) -> list[Row]:
    """The targets of the issue, each with what was measured; parts that were not measured are left out."""
    middle = {name: statistics.median(values) for name, values in samples.items() if values}
    found: list[Row] = []

    def ratio(what: str, ours: str, peer: str, limit: float, show: Callable[[float], str]) -> None:
        if ours in middle and peer in middle:
            value = middle[ours] / middle[peer]
            found.append(Row(what, show(middle[ours]), show(middle[peer]), value, "x", limit))

    def single(what: str, name: str, unit: str, limit: float) -> None:
        if name in middle:
            found.append(Row(what, f"{middle[name]:.2f} {unit}", "", middle[name], unit, limit))

    ratio(f"create + start {count} app, lxc-start {count} bare", "app create", "bare start", 1.0, _seconds)
    ratio(f"restart {count}, stop + start {count} bare", "app restart", "bare restart", 1.0, _seconds)
    ratio(f"destroy {count}, create {count}", "app destroy", "app create", 1.0, _seconds)
    ratio(f"create + boot {count} system, boot {count} bare", "system up", "bare system up", 1.0, _seconds)
    single("memory of a system container", "system memory", "MiB", 14.0)
    single("processor time of a system container's boot", "system cpu", "s", 0.3)
    ratio(f"list {count}, python3 -c 'import click'", "list", "import click", 3.0, _milliseconds)
    single(f"daemon and launcher with {count}, PSS", "daemon memory", "MiB", 60.0)
    single("memory added by an app container, PSS", "app memory", "MiB", 1.5)
    single("memory added by an app container, MemAvailable", "app memory available", "MiB", 1.5)
    found.append(Row("left after destroy --all", str(leftovers), "", leftovers, "", 0))
    return found


def table(found: Sequence[Row]) -> str:
    """The rows as text in columns."""
    lines = [("", "lxcfleet", "peer", "value", "target", "")]
    for row in found:
        value, limit = (
            f"{number:.2f}{row.unit}" if row.unit == "x" else f"{number:g}"
            for number in (row.value, row.limit)
        )
        lines.append(
            (
                row.what,
                row.ours,
                row.peer,
                value if row.unit == "x" else "",
                f"<= {limit}",
                "met" if row.met else "MISSED",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not number else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _milliseconds(value: float) -> str:
    return f"{value * 1000:.0f} ms"
