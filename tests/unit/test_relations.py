"""Packages of a container's own against another base: what they depend on, in which versions, and what they clash with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.base.merge import relations
from lxcfleet.base.merge.records import packages
from lxcfleet.base.merge.relations import TooMuch, World, broken, holds


def stanza(name: str, version: str, state: str = "installed", architecture: str = "amd64", **fields: str) -> str:
    more = "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in fields.items())
    return (
        f"Package: {name}\nStatus: install ok {state}\nArchitecture: {architecture}\nVersion: {version}\n"
        f"{more}Description: of a test\n more of it\n\n"
    )


def on(base: str, *own: str, before: str) -> list[str]:
    """What is broken in a container with these packages of its own that goes from one base to the other."""
    now = before + "".join(own)
    then = packages(before.encode(), base.encode(), now.encode()).content
    return broken(now.encode(), then, base.encode(), "generation 3")


OLD, NEW = stanza("libssl3", "3.0.11-1~deb12u2"), stanza("libssl3", "3.0.15-1~deb12u1")


@pytest.mark.parametrize(
    ("one", "sign", "other"),
    [
        ("1.0", "=", "1."), ("1", "=", "1-0"), ("0:1", "=", "1"), ("1~rc1", "<<", "1"), ("1~~", "<<", "1~"),
        ("1a", ">>", "1"), ("1+b1", ">>", "1"), ("1+b1", ">>", "1a"), ("1:1", ">>", "99"), ("1-1~bpo1", "<<", "1-1"),
        ("010", "=", "10"), ("2.36-9+deb12u10", ">>", "2.36-9+deb12u9"), ("1.10", ">=", "1.9"), ("1", "<=", "1"),
        ("1", "<", "1"), ("1", ">", "1"),
        ("9" * 5000, ">>", "8" * 5000),
    ],
)  # fmt: skip
def test_versions_have_dpkgs_order(one: str, sign: str, other: str) -> None:
    assert holds(one, sign, other)
    if sign in ("<<", ">>"):
        assert not holds(other, sign, one)


@given(*[st.text("019~.+-:abZé \0")] * 3)
def test_any_versions_have_an_order(one: str, two: str, three: str) -> None:
    assert holds(one, "<=", two) or holds(two, "<=", one)
    if holds(one, "<=", two) and holds(two, "<=", three):
        assert holds(one, "<=", three)


def test_a_package_that_needs_the_newer_base_is_named() -> None:
    nginx = stanza("nginx", "1.22-9", Depends="libssl3 (>= 3.0.15~)")
    assert on(OLD, nginx, before=NEW) == [
        "nginx 1.22-9 needs libssl3 (>= 3.0.15~), and with generation 3 it has libssl3 3.0.11-1~deb12u2"
    ]
    assert on(NEW, nginx, before=OLD) == []
    assert on(OLD, stanza("nginx", "1", Depends="libssl3 (>= 3.0.0~~alpha1)"), before=NEW) == []


@pytest.mark.parametrize("field", ["Depends", "Pre_Depends"])
def test_so_is_one_whose_need_is_not_there_at_all(field: str) -> None:
    own = stanza("tool", "1", **{field: "libnew, libssl3"})
    assert on(OLD, own, before=NEW + stanza("libnew", "1")) == ["tool 1 needs libnew, and with generation 3 it has none"]


def test_alternatives_and_what_others_provide_will_do() -> None:
    base = NEW + stanza("libnew", "2", Provides="virtual, versioned (= 5)")
    for need in ("libnone | libssl3", "libssl3:any", "libssl3 (<< 4)"):
        assert on(OLD, stanza("tool", "1", Depends=need), before=base) == [], need
    for need, told in (
        ("libnone | libnew", "libnone or libnew"), ("virtual", "virtual"), ("versioned (>= 5)", "versioned (>= 5)"),
        ("libnew\n (>= 2)", "libnew (>= 2)"),
    ):  # fmt: skip
        found = on(OLD, stanza("tool", "1", Depends=need), before=base)
        assert found == [f"tool 1 needs {told}, and with generation 3 it has none"]
    # An unversioned Provides has no version.
    assert on(OLD, stanza("tool", "1", Depends="virtual (>= 1)"), before=base) == [], "it was broken before"


def test_what_was_broken_before_or_is_broken_in_the_base_does_not_count() -> None:
    assert on(OLD, stanza("tool", "1", Depends="nowhere"), before=NEW) == []
    assert on(OLD + stanza("bad", "1", Depends="nowhere"), stanza("tool", "1"), before=NEW) == []


def test_a_package_of_the_base_that_needs_more_than_the_containers_own() -> None:
    """Both sides have changed the library, so the container's record of it stays."""
    own = stanza("libssl3", "3.0.11+local")
    app = stanza("app", "2", Depends="libssl3 (>= 3.0.15)")
    then = packages(OLD.encode(), (NEW + app).encode(), own.encode()).content
    assert broken(own.encode(), then, (NEW + app).encode(), "the host's root") == [
        "app 2 needs libssl3 (>= 3.0.15), and with the host's root it has libssl3 3.0.11+local"
    ]


def test_clashes_are_told() -> None:
    own = stanza("tool", "1", Breaks="libssl3 (<< 3.0.15)")
    assert on(OLD, own, before=NEW) == [
        "tool 1 does not go with libssl3 (<< 3.0.15), and with generation 3 it has libssl3 3.0.11-1~deb12u2"
    ]
    base = OLD + stanza("rival", "2", Conflicts="tool, rival")
    assert on(base, stanza("tool", "1"), before=NEW) == [
        "rival 2 does not go with tool, and with generation 3 it has tool 1"
    ]
    # A package that provides what it conflicts with replaces others of its kind, and goes with itself.
    assert on(OLD, stanza("mta", "1", Provides="mail", Conflicts="mail"), before=NEW) == []


def test_architectures_count() -> None:
    own = stanza("tool", "1", architecture="i386", Depends="libnew")
    assert on(OLD + stanza("libnew", "1"), own, before=NEW + stanza("libnew", "1", architecture="i386")) != []
    everybodys = stanza("libnew", "1", Multi_Arch="foreign")
    assert on(OLD + everybodys, own, before=NEW + stanza("libnew", "1", architecture="i386")) == []


def test_what_is_not_installed_serves_nobody_and_needs_nothing() -> None:
    tool = stanza("tool", "1", Depends="libnew")
    before = NEW + stanza("libnew", "1")
    assert on(OLD + stanza("libnew", "1", "config-files"), tool, before=before) != []
    assert on(OLD + stanza("libnew", "1", "triggers-pending"), tool, before=before) == []
    assert on(OLD, stanza("tool", "1", "config-files", Depends="libnew"), before=before) == []


def test_what_is_told_is_short_and_can_be_printed() -> None:
    own = stanza("tool", "1\x1b[2J" + "9" * 500, Depends="libnew")
    (told,) = on(OLD, own, before=NEW + stanza("libnew", "1"))
    assert len(told) == 200
    assert told.isprintable()
    many = "".join(stanza(f"tool{number}", "1", Depends="libnew") for number in range(50))
    assert len(on(OLD, many, before=NEW + stanza("libnew", "1"))) == relations.MOST_TOLD


def test_hostile_records_end_early(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooMuch):
        World.of(b"Package: a\n\n" * (relations.MOST_PACKAGES + 1))
    monkeypatch.setattr(relations, "_MOST_STEPS", 1000)
    many = "".join(stanza(f"p{number}", "1", Provides="x (= 1)", Depends="x (= 2)") for number in range(100))
    with pytest.raises(TooMuch):
        broken(b"", many.encode(), b"", "generation 3")


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=300))
def test_any_content_is_borne(now: bytes, then: bytes, base: bytes) -> None:
    head = b"Package: a\nStatus: install ok installed\nDepends: "
    broken(now, head + then, base, "generation 3")
    broken(head + now, then, head + base, "generation 3")
