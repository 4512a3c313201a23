"""The benchmark's figures, compared with the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the result. ``value`` is compared with ``limit``; both have ``unit``."""

    what: str
    ours: str
    peer: str
    value: float
    unit: str
    limit: float | None
    """None: nobody set a target."""

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.limit is None or self.value <= self.limit

    def to_json(self) -> dict[str, Any]:
        """The row for the file of results."""
        return {**asdict(self), "met": self.met}


def rows(samples: Mapping[str, Sequence[float]], count: int, leftovers: int) -> list[Row]:
    """The targets, each with its measured value. Targets without a measurement are left out."""
    middle = {name: statistics.median(values) for name, values in samples.items() if values}
    found: list[Row] = []

    def ratio(what: str, ours: str, peer: str, limit: float | None, show: Callable[[float], str]) -> None:
        if ours in middle and peer in middle:
            value = middle[ours] / middle[peer]
            found.append(Row(what, show(middle[ours]), show(middle[peer]), value, "x", limit))

    def single(what: str, name: str, unit: str, limit: float | None) -> None:
        if name in middle:
            found.append(Row(what, f"{middle[name]:.2f} {unit}", "", middle[name], unit, limit))

    for kind, words, limit in (
        ("plain", "bare, privileged, all on the host's own root", 1.0),
        ("clone", "bare, privileged, with overlays and common.conf", 1.0),
        ("unprivileged", "bare, unprivileged as ours, overlays mounted before", None),
    ):
        ratio(f"create + start {count} app; start {count} {words}", "app create", f"{kind} start", limit, _seconds)
        ratio(f"restart {count}; stop + start {count} {words}", "app restart", f"{kind} restart", limit, _seconds)
    ratio(f"destroy {count}; create {count}", "app destroy", "app create", 1.0, _seconds)
    ratio(f"create + boot {count} system; boot {count} bare", "system up", "bare system up", 1.0, _seconds)
    single("memory of a system container", "system memory", "MiB", 14.0)
    single("processor time of a system container's boot", "system cpu", "s", 0.3)
    ratio(f"list {count}; python3 -c 'import click'", "list", "import click", 3.0, _milliseconds)
    single(f"daemon and launcher with {count}, PSS", "daemon memory", "MiB", 60.0)
    single("memory of an app container's processes and monitor, PSS", "app memory", "MiB", 1.5)
    single("  and what the kernel needs for it", "app kernel memory", "MiB", None)
    found.append(Row("left after destroy --all", str(leftovers), "", leftovers, "", 0))
    return found


def table(found: Sequence[Row]) -> str:
    """The rows as text in columns."""
    lines = [("", "lxcfleet", "peer", "ratio", "target", "")]
    for row in found:
        value = f"{row.value:.2f}" if row.unit == "x" else ""
        limit = f"<= {row.limit:g}" if row.limit is not None else ""
        verdict = "" if row.limit is None else "met" if row.met else "MISSED"
        lines.append((row.what, row.ours, row.peer, value, limit, verdict))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s"


def _milliseconds(value: float) -> str:
    return f"{value * 1000:.0f} ms"
