"""The CVEs that a generation lacks, as they are told beside it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lxcfleet.errors import HostError
from lxcfleet.patch.cve import sets
from lxcfleet.patch.cve.sets import Sets
from lxcfleet.spec.policies.cves import CveSettings


class Launcher:
    """Answers with two CVEs that a generation lacks, and one that it has."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.fails = False

    async def ask_large(self, _: object, item: Any) -> Any:
        self.asked.append(item)
        if self.fails:
            raise HostError("no")
        found = [
            {"cve": "CVE-2026-0002", "disk": "fixable", "without": ["libssl3 3.0-1", "openssl 3.0-1"]},
            {"cve": "CVE-2026-0001", "disk": "fixable", "without": ["openssl 3.0-1"]},
            {"cve": "CVE-2026-0003", "disk": "fixed", "without": []},
        ]
        return {"found": found, "sets": [{"found": [0, 1, 2]}]}


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """dpkg's records, as a stamp that a test can change."""
    stamp = [1]
    monkeypatch.setattr(sets, "stamp", lambda _: list(stamp))
    return stamp


def test_each_generation_is_looked_at_once_for_each_state_of_the_host(changes: list[int]) -> None:
    launcher: Any = Launcher()
    of = Sets(launcher, CveSettings)
    for _ in range(3):
        assert asyncio.run(of.behind(3)) == {"libssl3": ["CVE-2026-0002"], "openssl": ["CVE-2026-0001", "CVE-2026-0002"]}
    assert [item["generations"] for item in launcher.asked] == [[3]]
    changes[0] = 2
    asyncio.run(of.behind(3))
    asyncio.run(of.behind(4))
    assert [item["generations"] for item in launcher.asked] == [[3], [3], [4]]


def test_a_look_that_fails_tells_nothing_and_is_not_repeated_for_each_container(changes: list[int]) -> None:
    launcher: Any = Launcher()
    launcher.fails = True
    of = Sets(launcher, CveSettings)
    assert [asyncio.run(of.behind(3)) for _ in range(3)] == [{}, {}, {}]
    assert len(launcher.asked) == 1


@pytest.mark.parametrize(
    ("source", "path"), [("", ""), ("/srv/x", "/srv/x"), ("file:///srv/a%20b", "/srv/a b"), ("file:///srv/x/", "/srv/x/")]
)
def test_where_the_data_is(source: str, path: str) -> None:
    settings = CveSettings(source)
    assert settings.path == path
    assert not list(settings.problems())


@pytest.mark.parametrize("source", ["https://example.org/x", "x", "file://host/x", "../x"])
def test_data_has_to_be_on_this_host(source: str) -> None:
    assert [key for key, _ in CveSettings(source).problems()] == ["source"]
    assert [key for key, _ in CveSettings("", "../x").problems()] == ["suite"]
