"""Specs on disk and the operator's settings: they are read as written, and all mistakes are told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcfleet.api.requests import CreateRequest
from lxcfleet.containers import store
from lxcfleet.errors import Broken, InvalidInput
from lxcfleet.paths import Paths
from lxcfleet.spec.container.health import CheckKind, HealthCheck
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files import settings
from lxcfleet.spec.reading.terms import Init

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)
CREATED = "2026-01-01T00:00:00Z"
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)


@given(
    st.lists(TEXT, min_size=1, max_size=4),
    st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), VALUE, max_size=3),
)
def test_a_spec_is_read_as_it_was_written(command: list[str], environment: dict[str, str]) -> None:
    labels = {"role": "web"}
    spec = Spec(
        "web", Init.APP, tuple(command), environment, labels, "small", 1879048192, created=CREATED, autostart=False,
        boot_order=-3,
    )  # fmt: skip
    assert store.parse("web", store.render(spec).encode(), "spec") == spec


@pytest.mark.parametrize(
    "check",
    [
        HealthCheck(CheckKind.EXEC, ("sh", "-c", "a 'b'"), interval=0.5),
        HealthCheck(CheckKind.TCP, port=80, retries=1, start_period=0),
        HealthCheck(CheckKind.HTTP, port=8080, path="/a?b=c", host="web.example", timeout=2.5),
        HealthCheck(CheckKind.HTTP, port=80),
    ],
)
def test_a_check_is_read_as_it_was_written(check: HealthCheck) -> None:
    spec = Spec("web", Init.APP, ("sleep", "1"), health=check, created=CREATED)
    assert store.parse("web", store.render(spec).encode(), "spec") == spec
    assert CreateRequest.from_json(CreateRequest(name="web", said={"health": check}).to_json()).said == {"health": check}


def test_a_spec_from_before_autostart_starts_at_boot() -> None:
    old = store.render(Spec("web", created=CREATED, first_id=1879048192)).splitlines()
    text = "\n".join(line for line in old if not line.startswith(("autostart", "boot_order")))
    spec = store.parse("web", text.encode(), "spec")
    assert (spec.autostart, spec.boot_order) == (True, 0)


def test_a_spec_cut_in_half_is_broken_wherever_it_is_cut() -> None:
    spec = Spec("web", Init.APP, ("sleep", "1"), {}, {}, None, 1879048192, created=CREATED)
    text = store.render(spec).encode()
    for length in range(len(text) - 3):
        with pytest.raises(Broken):
            store.parse("web", text[:length], "spec")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("colour: red", "colour: unknown key"),
        ("first_id: 12", "first_id: 12 is not between"),
        ("labels: {a: 1}", "labels.a: expected text"),
        ("init: vm", "init: 'vm' is none of system, app"),
        ("health: {tcp: 80, http: /}", "health: takes exactly one of exec, tcp, http and ignore_units"),
        ("health: {interval: 5}", "health: takes exactly one of exec, tcp, http and ignore_units"),
        ("health: {tcp: 99999}", "health: tcp: 99999 is not between 1 and 65535"),
        ("health: {exec: true}", "health: exec: expected a list such as [a, b]"),
        ("health: {exec: []}", "health: exec: expected a command as a list"),
        ("health: {http: ftp}", "health: http: 'ftp' is no address of a check"),
        ("health: {tcp: 80, colour: red}", "health: colour: unknown key"),
        ("restart: {colour: red, shape: round}", "restart: colour: unknown key; known here: attempts, delay, "),
        ("health: {tcp: 80, timeuot: 1}", "health: timeuot: unknown key: did you mean timeout?"),
        ("memroy: 1G", "memroy: unknown key: did you mean memory?"),
        ("health: {tcp: 80, interval: 2h}", "health: interval: 2h is not between 0.1 and 3600 seconds"),
        ("stop_timeout: soon", "stop_timeout: 'soon' is no length of time: write it as 90, 45s, 10m, 2h or 1d"),
        ('created: "a\\nb"', "created: holds control characters"),
        ("x: &a [1]\ny: *a", "aliases"),
    ],
)
def test_a_bad_spec_says_where(line: str, complaint: str) -> None:
    with pytest.raises(Broken) as caught:
        store.parse("web", f"version: 1\n{line}\n".encode(), "/lxc/web/lxcfleet.yaml")
    assert complaint in caught.value.why
    assert "/lxc/web/lxcfleet.yaml" in caught.value.why


def test_only_our_own_directories_are_read(tmp_path: Path) -> None:
    paths = Paths(lxc=tmp_path)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config").write_text("lxc.idmap = u 0 100000 65536\n")
    (tmp_path / ".lxcfleet-new-a").mkdir()
    (tmp_path / ".lxcfleet-gone-b.0").mkdir()
    (tmp_path / ".lxcfleet-probe-x").mkdir()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "lxcfleet.yaml").write_text(store.render(Spec("ours", created="2026-01-01T00:00:00Z")))
    specs, leftovers = store.load_all(paths)
    assert list(specs) == ["ours"]
    assert leftovers == store.Leftovers((".lxcfleet-new-a",), (".lxcfleet-gone-b.0", ".lxcfleet-probe-x"))
    assert store.foreign_configs(paths, {"ours"}) == ["lxc.idmap = u 0 100000 65536\n"]
    assert store.config(paths, "theirs") == "lxc.idmap = u 0 100000 65536\n"
    assert store.config(paths, "ours") == ""


def test_a_copy_under_a_name_that_none_can_have_is_none_of_ours(tmp_path: Path) -> None:
    paths = Paths(lxc=tmp_path, run=tmp_path / "run", etc=tmp_path / "etc")
    for name in ("web", "web.bak", "Web", "w\u00e9b", "web-", "x" * 64):
        paths.container(name).directory.mkdir()
        paths.container(name).spec.write_text(store.render(Spec(name, created=CREATED)))
    specs, _ = store.load_all(paths)
    assert list(specs) == ["web"]


def test_settings_that_are_missing_are_the_defaults(tmp_path: Path) -> None:
    assert settings.load(tmp_path / "none.yaml") == settings.Config()


def test_settings_are_read_as_they_are_shown() -> None:
    text = b"workers: 3\nprofiles:\n  small:\n    init: app\n    command: [sleep, '1']\n    labels: {a: b}\n"
    read = settings.parse(text, "f")
    assert read.profiles["small"].said["command"] == ("sleep", "1")
    assert settings.parse(settings.describe(read).encode(), "f") == read


def test_all_that_is_wrong_with_settings_is_told_at_once() -> None:
    text = b"workers: 1000\nlog_level: loud\nnonsense: 1\nprofiles:\n  p:\n    init: system\n    command: [a]\n"
    with pytest.raises(InvalidInput) as caught:
        settings.parse(text, "lxcfleet.yaml")
    lines = caught.value.why.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("lxcfleet.yaml: ") for line in lines)
    assert any("profiles: p: command" in line for line in lines)
    assert any("workers" in line for line in lines)
