"""Draws what bench/curves.py measured: docs/performance/curves.svg, and the tables in docs/performance.md. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypedDict

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NETWORKS = ("bridge", "none")


class Sample(TypedDict):
    """One round: what ``count`` containers took together, in seconds."""

    network: str
    count: int
    create: float
    """Until all have written a file: made and started, and ready."""
    restart: float
    stop: float
    start: float
    exec: float
    destroy: float
    softirq: float
    """The share of the processors' time that went to soft interrupts while all restarted."""


class Record(TypedDict):
    """The file of samples."""

    host: dict[str, Any]
    samples: list[Sample]
    warnings: list[str]


class Curve(NamedTuple):
    """One thing that was measured, for all counts."""

    key: str
    title: str
    unit: str
    of: Callable[[Sample], float]


def _each(key: str) -> Callable[[Sample], float]:
    """Milliseconds for each container."""
    return lambda sample: float(sample[key]) / sample["count"] * 1000  # type: ignore[literal-required]


CURVES = (
    Curve("create", "create + start, until ready", "ms", _each("create")),
    Curve("restart", "restart, until ready", "ms", _each("restart")),
    Curve("stop", "stop", "ms", _each("stop")),
    Curve("destroy", "destroy", "ms", _each("destroy")),
    Curve("exec", "exec -- true", "ms", _each("exec")),
    Curve("softirq", "softirq while all restart", "%", lambda sample: sample["softirq"] * 100),
)
_CHANGES = CURVES[:4]


class Medians:
    """The medians of the rounds."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples
        self.counts = sorted({sample["count"] for sample in samples})

    def values(self, of: Callable[[Sample], float], network: str, count: int) -> list[float]:
        """Those of all rounds."""
        return [of(each) for each in self._samples if each["network"] == network and each["count"] == count]

    def get(self, of: Callable[[Sample], float], network: str, count: int) -> float:
        """Their median; nan if nothing was measured."""
        values = self.values(of, network, count)
        return statistics.median(values) if values else math.nan


class Target(NamedTuple):
    """What is to be reached, and what was."""

    what: str
    value: float
    limit: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether it is reached. What was not measured is not."""
        return self.value <= self.limit


def targets(medians: Medians) -> list[Target]:
    """All of them, for the largest count that was measured."""
    most = medians.counts[-1]
    middle = 100 if 100 in medians.counts else medians.counts[0]
    found = []
    for curve in _CHANGES:
        at_most = medians.get(curve.of, "bridge", most)
        before, without = medians.get(curve.of, "bridge", middle), medians.get(curve.of, "none", most)
        word = "create + start" if curve.key == "create" else curve.key
        grows, costs = f"one of {most:,}, compared with one of {middle:,}", "on the bridge, compared with no network"
        found.append(Target(f"{word} on the bridge: {grows}", at_most / before, 1.3, "×"))
        found.append(Target(f"{word} of {most:,}: {costs}", at_most / without, 1.25, "×"))
    both = medians.get(lambda sample: sample["restart"] / (sample["stop"] + sample["start"]), "bridge", most)
    found.append(Target(f"restart of {most:,} on the bridge, compared with stop and start", both, 1.2, "×"))
    found.append(Target(f"exec of {most:,} on the bridge, each", medians.get(_each("exec"), "bridge", most), 3, "ms"))
    found.append(Target(f"softirq while {most:,} on the bridge restart", medians.get(CURVES[5].of, "bridge", most), 5, "%"))
    return found


def replaced(page: str, record: Record) -> str:
    """The page with what was measured between its two marks. Raises ValueError if it lacks them."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return head + BEGIN + "\n" + "\n".join(_block(record)) + "\n" + END + tail


def _block(record: Record) -> Iterator[str]:
    medians, host = Medians(record["samples"]), record["host"]
    yield f"Measured on {host['date']} on {host['processors']} cores ({host['model']})"
    yield f"with {host['memory_mib'] / 1024:.0f} GiB,"
    yield f"Linux {host['kernel']}, LXC {host['lxc']}, lxcfleet {host['version']}."
    yield f"Load average before it: {host['load_before']:.1f}."
    yield ""
    rounds = {count: len(medians.values(_each("create"), "bridge", count)) for count in medians.counts}
    yield f"Rounds: {', '.join(f'{number} of {count:,}' for count, number in rounds.items())}. Medians, for each container:"
    yield ""
    yield "| | network | " + " | ".join(f"{count:,}" for count in medians.counts) + " |"
    yield "|---|---|" + "---|" * len(medians.counts)
    for curve in CURVES:
        for network in NETWORKS:
            cells = [shown(medians.get(curve.of, network, count), curve.unit) for count in medians.counts]
            yield f"| {curve.title if network == NETWORKS[0] else ''} | {network} | " + " | ".join(cells) + " |"
    yield ""
    yield "| target | measured | at most | |"
    yield "|---|---|---|---|"
    for target in targets(medians):
        verdict = "met" if target.met else "**missed**"
        yield f"| {target.what} | {shown(target.value, target.unit)} | {target.limit:g} {target.unit} | {verdict} |"
    if record["warnings"]:
        yield f"\nNot quiet: {'; '.join(dict.fromkeys(record['warnings']))}."


def shown(value: float, unit: str) -> str:
    """A value with its unit."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f} {unit}" if unit == "×" else f"{value:.1f} {unit}"


# -- the picture ---------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT, _COLUMNS = 330, 230, 3
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 34, 14, 34
_COLOURS = {"bridge": "#1f6feb", "none": "#8a6d1f"}
_NAMES = {"bridge": "on the bridge", "none": "without a network"}


def picture(record: Record) -> str:
    """A panel for each curve, as SVG: containers on a logarithmic axis, points for rounds, lines through their medians."""
    medians = Medians(record["samples"])
    rows = math.ceil(len(CURVES) / _COLUMNS)
    width, height = _WIDTH * _COLUMNS, _HEIGHT * rows + 26
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">',
        "<title>What each container costs, by how many there are</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, curve in enumerate(CURVES):
        x, y = number % _COLUMNS * _WIDTH, number // _COLUMNS * _HEIGHT
        lines += [f'<g transform="translate({x},{y})">', *_panel(medians, curve), "</g>"]
    for number, network in enumerate(NETWORKS):
        x = _LEFT + number * 150
        lines.append(f'<circle cx="{x}" cy="{height - 14}" r="4" fill="{_COLOURS[network]}"/>')
        lines.append(f'<text x="{x + 9}" y="{height - 10}">{_NAMES[network]}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _panel(medians: Medians, curve: Curve) -> Iterator[str]:
    first, last = math.log10(medians.counts[0]), math.log10(medians.counts[-1])
    every = [each for network in NETWORKS for count in medians.counts for each in medians.values(curve.of, network, count)]
    top, step = scale(max(every, default=1.0))
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(count: int, value: float) -> tuple[float, float]:
        share = (math.log10(count) - first) / (last - first) if last > first else 0.5
        return round(_LEFT + share * width, 1), round(_TOP + height - value / top * height, 1)

    unit = "ms per container" if curve.unit == "ms" else "% of all processors"
    yield f'<text x="{_LEFT}" y="16" font-weight="bold">{curve.title}</text>'
    yield f'<text x="{_LEFT}" y="29" fill="#57606a" font-size="10">{unit}</text>'
    for number in range(round(top / step) + 1):
        _, y = place(medians.counts[0], number * step)
        yield f'<path d="M{_LEFT} {y}H{_LEFT + width}" stroke="#d0d7de" stroke-width="0.7"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{number * step:g}</text>'
    for count in medians.counts:
        x, y = place(count, 0)
        yield f'<text x="{x}" y="{y + 16}" text-anchor="middle">{count:,}</text>'
    for network in NETWORKS:
        colour = _COLOURS[network]
        known = [count for count in medians.counts if medians.values(curve.of, network, count)]
        points = " ".join("{},{}".format(*place(count, medians.get(curve.of, network, count))) for count in known)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for count in known:
            for value in medians.values(curve.of, network, count):
                x, y = place(count, value)
                yield f'<circle cx="{x}" cy="{y}" r="2.5" fill="{colour}"/>'


def scale(most: float) -> tuple[float, float]:
    """The end of an axis from zero with room for ``most``, and the distance of its lines: 1, 2 or 5 times a power of ten."""
    raw = max(most, 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    return math.ceil(most / step - 1e-9) * step if most > 0 else step, step
