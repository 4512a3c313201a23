"""Names, labels, selections and natural order."""

from __future__ import annotations

import pytest

from lxcfleet.errors import InvalidInput, NotFound
from lxcfleet.paths import Paths
from lxcfleet.spec.reading.names import check_name, parse_label
from lxcfleet.spec.results import Result, exit_status
from lxcfleet.spec.selection import Selection, natural_order

FLEET = {"web1": {"role": "web"}, "web2": {"role": "web"}, "web10": {"role": "web"}, "db": {"role": "db"}}


@pytest.mark.parametrize("name", ["a", "web1", "1", "a-b", "x" * 63])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 64, "a/b", "a:b", "a,b", "a\nb", "a\n", "-a", "a-", ".", "..", "A", "a b", "ä", "a_b", "a.b"]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidInput):
        check_name(name)


def test_labels() -> None:
    assert parse_label("role=web") == ("role", "web")
    assert parse_label("k=") == ("k", "")
    for text in ("role", "=web", "a b=c", "k=a b", "k=\n"):
        with pytest.raises(InvalidInput) as raised:
            parse_label(text)
        assert raised.value.message.startswith(repr(text))


@pytest.mark.parametrize(
    ("selection", "chosen"),
    [
        (Selection(("web2", "db")), ("db", "web2")),
        (Selection(("web*",)), ("web1", "web2", "web10")),
        (Selection(("w*",), (("role", "web"),)), ("web1", "web2", "web10")),
        (Selection((), (("role", "db"),)), ("db",)),
        (Selection(everything=True), ("db", "web1", "web2", "web10")),
        (Selection(("x*",)), ()),
    ],
)
def test_selections(selection: Selection, chosen: tuple[str, ...]) -> None:
    assert selection.choose(FLEET) == chosen


def test_an_empty_selection_is_never_everything() -> None:
    with pytest.raises(InvalidInput):
        Selection().choose(FLEET)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(NotFound, match="nosuch"):
        Selection(("web1", "nosuch")).choose(FLEET)


def test_natural_order() -> None:
    assert natural_order(["c10", "c2", "c1", "b"]) == ("b", "c1", "c2", "c10")


def test_exit_status() -> None:
    good = Result("a", "started", True)
    bad = Result("b", "failed", False, {"code": "failed", "message": "", "why": "", "hint": ""})
    assert exit_status([]) == exit_status([good]) == 0
    assert exit_status([bad]) == 1
    assert exit_status([good, bad]) == 3


def test_paths_survive_the_way_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = Paths.from_environment()
    for key, value in paths.environment().items():
        monkeypatch.setenv(key, value)
    assert Paths.from_environment() == paths


@pytest.mark.parametrize("patterns", [("*a" * 200,), tuple(f"x{number}*" for number in range(129))])
def test_globs_that_take_everybodys_time_are_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        Selection(patterns).choose(FLEET)


def test_of_many_missing_names_some_are_told() -> None:
    with pytest.raises(NotFound, match=r"^no container named n0, n1, n2, n3, n4, n5, n6, n7, n8, n9 and 4990 more"):
        Selection(tuple(f"n{number}" for number in range(5000))).choose(FLEET)
