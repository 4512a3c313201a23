"""The order of Debian's version numbers, held against answers of `dpkg --compare-versions`."""

from __future__ import annotations

import random

import pytest

from lxcfleet.host.packages.order import compare

OLDER = [
    ("1.0~", "1.0"), ("1.0~rc1", "1.0~rc2"), ("1.0~~", "1.0~"), ("1.0~~a", "1.0~"), ("1.0", "1.0+b1"), ("1.0", "1.0a"),
    ("1.0a", "1.0+"), ("1.0Z", "1.0a"), ("1.0a", "1.0."), ("1.9", "1.10"), ("9", "1:1"), ("1:9", "2:0"),
    ("1.0-1", "1.0-1+b1"),
    ("1.0-1~deb12u1", "1.0-1"), ("1.0-1", "1.0-1+deb12u1"), ("1.0-9", "1.0-10"), ("1.0-1", "1.0-a-1"), ("1.0-~", "1.0"),
    ("1.0-0~", "1.0-0"), ("0~1", "0"),
    ("3.0.17-1~deb12u2", "3.0.19-1~deb12u2"), ("2.36-9", "2.36-9+deb12u13"), ("6.1.99-1", "6.1.159-1"), ("1.0", "1.0.1"),
    ("7.88.1-10+deb12u9", "7.88.1-10+deb12u14"), ("20230311", "20230311+deb12u1"), ("0.4.20", "0.4.20.1"), ("1.0", "1.0-1"),
]  # fmt: skip
SAME = [("1.0", "1.00"), ("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.0-01", "1.0-1"), ("1", "1")]


@pytest.mark.parametrize(("one", "other"), OLDER)
def test_the_older_one_comes_first(one: str, other: str) -> None:
    assert compare(one, other) < 0 < compare(other, one)


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_version_in_two_ways(one: str, other: str) -> None:
    assert compare(one, other) == compare(other, one) == 0


def test_it_is_an_order() -> None:
    numbers = random.Random(20)
    texts = ["".join(numbers.choice("019a.+~:-") for _ in range(numbers.randint(1, 6))) for _ in range(60)]
    for one in texts:
        assert compare(one, one) == 0
        for other in texts:
            assert compare(one, other) == -compare(other, one)
            for third in texts[:20]:
                if compare(one, other) <= 0 and compare(other, third) <= 0:
                    assert compare(one, third) <= 0


@pytest.mark.parametrize("text", ["", ":", "-", "x:1", "9" * 5000, "ä-\0", "::--", "²"])
def test_a_version_that_makes_no_sense_is_compared_all_the_same(text: str) -> None:
    assert compare(text, text) == 0
    assert compare(text, "1.0") == -compare("1.0", text)
