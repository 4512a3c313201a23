"""debsecan's data, in both versions of its form."""

from __future__ import annotations

import zlib

import pytest

from lxcfleet.patch.cve import tracker

NEW = """VERSION 1
CVE-2026-0001,,Use after free, and more
CVE-2026-0002,,
TEMP-0000000-A,,no number yet

openssl,0,SHRF,3.5.0-1,3.0.19-1~deb12u2 3.0.20-1
openssl,1,SM ?,,
bash,2,S L?,5.3,
libfoo1,1,B   ,2.0,
nothere,0,SL?F,9,

openssl,libssl3 openssl
bash,bash
"""
OLD = """VERSION 0
CVE-2026-0001,SHRF,openssl,3.0.19-1~deb12u2,Use after free, and more
CVE-2026-0002,B   ,libfoo1,,
"""


def test_the_new_form() -> None:
    found = tracker.parse(NEW.encode(), {"openssl", "libfoo1"})
    assert set(found) == {"openssl", "libfoo1"}
    first, second = found["openssl"]
    assert (first.cve, first.binary, first.fixed, first.urgency, first.remote) == ("CVE-2026-0001", False, True, "high", True)
    assert first.description == "Use after free, and more"
    assert [first.has(each) for each in ("3.0.17-1", "3.0.19-1~deb12u2", "3.0.20-1", "3.5.0-1", "3.6-1")] == [
        True, False, False, False, False,
    ]  # fmt: skip
    assert (second.fixed, second.urgency, second.remote, second.has("99")) == (False, "medium", False, True)
    (foo,) = found["libfoo1"]
    assert (foo.binary, foo.has("1.9"), foo.has("2.0")) == (True, True, False)


def test_the_old_form() -> None:
    found = tracker.parse(OLD.encode(), {"openssl", "libfoo1"})
    assert found["openssl"][0].has("3.0.19-1~deb12u1")
    assert not found["openssl"][0].has("3.0.19-1~deb12u2")
    assert found["libfoo1"][0].has("99")


def test_a_cve_that_is_asked_for_counts_in_all_packages() -> None:
    found = tracker.parse(NEW.encode(), {"bash"}, ["CVE-2026-0001"])
    assert set(found) == {"bash", "openssl", "nothere"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("VERSION 2\n", "only versions 0 and 1"),
        ("", "only versions 0 and 1"),
        ("VERSION 1\nCVE-1,,\n", "no list of packages"),
        ("VERSION 1\nCVE-1,,x\n\nopenssl,7,S   ,,\n\n", "make no sense"),
        ("VERSION 1\nCVE-1,,x\n\nopenssl,x,S   ,,\n\n", "no number"),
        ("VERSION 1\nCVE-1,,x\n\nopenssl,0,S,,\n\n", "no flags"), ("VERSION 0\nx,y\n", "make no sense"),
    ],
)  # fmt: skip
def test_data_that_makes_no_sense(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tracker.parse(text.encode(), {"openssl"})


def test_unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracker.unpack(zlib.compress(b"x" * 1000)) == b"x" * 1000
    with pytest.raises(ValueError, match="no zlib stream"):
        tracker.unpack(b"plain text")
    with pytest.raises(ValueError, match="its end is missing"):
        tracker.unpack(zlib.compress(b"x" * 100_000)[:-10])
    monkeypatch.setattr(tracker, "_MOST", 10 << 20)
    with pytest.raises(ValueError, match="more than 10 MiB"):
        tracker.unpack(zlib.compress(bytes(20 << 20)))
