"""YAML from people, some of them hostile: it gives values, or one ValueError with the place."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxcfleet.containers import store
from lxcfleet.errors import Broken, InvalidInput
from lxcfleet.spec.files.settings import parse
from lxcfleet.spec.reading import strict_yaml

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in b"bcdefghij"
)
"""Three billion items, if aliases were followed."""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "aliases"),
        (b"a: &a {x: 1}\nb: {<<: *a}\n", "aliases|merge"),
        (b"a: 1\na: 2\n", "stands there twice"),
        (b"a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        (b"a: !!binary xx\n", "binary|decode|base64"),
        (b"[" * 5000, "nested|expected"),
        (b"a: [1\nb: 2", "line 2"),
        (b"\xff\xfe\x00", ""),
        (b"a: \x00", ""),
        (b"--- 1\n--- 2\n", "document"),
        (b"a: 9999-99-99\n", ""),
        (b"a: " + b"9" * 5000, ""),
    ],
    ids=["bomb", "merge", "twice", "object", "binary", "deep", "cut", "encoding", "nul", "two", "date", "digits"],
)
def test_traps_are_refused(text: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        strict_yaml.load(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | st.text("ab:-[]{}&*!<|>'\"#%@\\ \n\t0.?,", max_size=60).map(str.encode))
def test_any_text_is_read_or_refused(text: bytes) -> None:
    with contextlib.suppress(ValueError):
        strict_yaml.load(text)


SETTINGS = st.sampled_from(("workers", "network", "profiles", "memory", "pids", "rollout", "x"))
FIELDS = st.sampled_from(("version", "init", "command", "first_id", "address", "memory", "cpus", "health"))
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(blacklist_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(plain)
def test_values_are_read_as_they_were_written(value: object) -> None:
    text = strict_yaml.inline(value)
    assert "\n" not in text
    assert strict_yaml.load(f"key: {text}".encode()) == {"key": value}


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(SETTINGS, plain, max_size=4))
def test_settings_are_taken_or_refused_with_the_key(values: dict[str, object]) -> None:
    text = "\n".join(f"{key}: {strict_yaml.inline(value)}" for key, value in values.items())
    try:
        parse(text.encode(), "file")
    except InvalidInput as error:
        complaints = error.why.splitlines()
    else:
        return
    assert complaints
    assert all(line.startswith("file: ") for line in complaints)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(FIELDS, plain))
def test_a_spec_is_taken_or_broken(values: dict[str, object]) -> None:
    text = "\n".join(f"{key}: {strict_yaml.inline(value)}" for key, value in values.items())
    try:
        store.parse("web", text.encode(), "file")
    except Broken as error:
        why = error.why
    else:
        return
    assert why


def test_all_that_is_wrong_is_told_at_once_with_the_way_to_it() -> None:
    text = b"workers: many\nnetwork: {bridge: 'a b', colour: red}\nprofiles: {web: {memory: much, init: odd}}\nx: 1\n"
    with pytest.raises(InvalidInput) as caught:
        parse(text, "file")
    for key in ("file: workers:", "file: network: bridge:", "file: network: colour:", "file: profiles: web: memory:",
                "file: profiles: web: init:", "file: x: unknown key"):  # fmt: skip
        assert key in caught.value.why


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30), ("8388608", 8 << 20), ("0", 0), ("8192k", 8 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    from lxcfleet.units import parse_size

    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "1", "-5M", "1.5G", "9" * 20, "4PB", "5 M x"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    from lxcfleet.units import parse_size

    with pytest.raises(InvalidInput):
        parse_size(text)
