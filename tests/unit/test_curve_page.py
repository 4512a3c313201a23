"""What bench/curves.py measured, as docs/performance.md shows it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import curve_page
from bench.curve_page import BEGIN, CURVES, END, Medians, Record, Sample

DOCS = Path(__file__).resolve().parents[2] / "docs"


def sample(network: str, count: int, each: float) -> Sample:
    """``each``: seconds for each container."""
    all_of_them = each * count
    found: Sample = {
        "network": network, "count": count, "create": all_of_them, "restart": all_of_them, "stop": all_of_them,
        "start": all_of_them, "exec": all_of_them, "destroy": all_of_them, "softirq": 0.01,
    }  # fmt: skip
    return found


def record(*samples: Sample) -> Record:
    host = {"date": "2026-01-02", "kernel": "6.1", "processors": 2, "model": "A & B <processor>", "memory_mib": 4096,
            "lxc": "5.0.2", "version": "1", "load_before": 0.1}  # fmt: skip
    return {"host": host, "samples": list(samples), "warnings": []}


MEASURED = record(
    *(
        sample(network, count, each)
        for network in ("bridge", "none")
        for count, each in ((10, 0.03), (100, 0.01), (1000, 0.012))
    )
)


def test_the_page_and_the_picture_are_of_the_samples_beside_them() -> None:
    """If not: ``make docs``."""
    found: Record = json.loads((DOCS / "performance/curves.json").read_text(encoding="utf-8"))
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert curve_page.replaced(page, found) == page
    assert (DOCS / "performance/curves.svg").read_text(encoding="utf-8") == curve_page.picture(found)


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = curve_page.replaced(f"before\n{BEGIN}\nold\n{END}\nafter\n", MEASURED)
    assert page.startswith(f"before\n{BEGIN}\n")
    assert page.endswith(f"\n{END}\nafter\n")
    assert "old" not in page
    assert "1 of 10, 1 of 100, 1 of 1,000" in page
    with pytest.raises(ValueError, match="the page has no"):
        curve_page.replaced("nothing", MEASURED)


def test_targets_are_those_of_the_largest_count() -> None:
    found = {target.what: target for target in curve_page.targets(Medians(MEASURED["samples"]))}
    grows = found["restart on the bridge: one of 1,000, compared with one of 100"]
    assert (round(grows.value, 2), grows.met) == (1.2, True)
    executed = found["exec of 1,000 on the bridge, each"]
    assert (round(executed.value, 1), executed.met) == (12.0, False)
    assert found["softirq while 1,000 on the bridge restart"].met
    assert found["restart of 1,000 on the bridge, compared with stop and start"].value == pytest.approx(0.5)


def test_what_was_not_measured_is_not_met() -> None:
    only = Medians([sample("bridge", 1000, 0.01)])
    compared = [each for each in curve_page.targets(only) if "no network" in each.what]
    assert len(compared) == 4
    assert all(math.isnan(each.value) and not each.met for each in compared)


def test_a_median_is_that_of_all_rounds() -> None:
    samples = [sample("bridge", 10, each) for each in (0.03, 0.01, 0.5)]
    assert Medians(samples).get(CURVES[0].of, "bridge", 10) == pytest.approx(30)


def test_the_picture_has_a_panel_for_each_curve_with_all_rounds() -> None:
    picture = ElementTree.fromstring(curve_page.picture(MEASURED))
    space = {"s": "http://www.w3.org/2000/svg"}
    panels = picture.findall("s:g", space)
    assert [panel.findtext("s:text", None, space) for panel in panels] == [curve.title for curve in CURVES]
    assert all(len(panel.findall("s:circle", space)) == 6 for panel in panels)


@pytest.mark.parametrize(
    ("most", "end", "step"), [(3.9, 4.0, 1.0), (41.0, 60.0, 20.0), (0.0, 5e-10, 5e-10), (100.0, 100.0, 50.0)]
)
def test_an_axis_ends_above_the_largest_value(most: float, end: float, step: float) -> None:
    found = curve_page.scale(most)
    assert found == pytest.approx((end, step))
