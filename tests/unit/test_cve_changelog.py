"""Changelogs: which version closed which CVE, in texts that people wrote, and in hostile ones."""

from __future__ import annotations

import random
import time

import pytest

from lxcfleet.patch.cve import changelog
from lxcfleet.patch.cve.changelog import Changelog, MentionKind

END = " -- A Maintainer <a@example.org>  Fri, 03 Apr 2026 14:29:32 +0200\n\n"
ONE, TWO = "CVE-2026-0001", "CVE-2026-0002"


def entry(version: str, *lines: str, source: str = "openssl") -> str:
    return f"{source} ({version}) bookworm-security; urgency=medium\n\n" + "".join(f"{line}\n" for line in lines) + f"\n{END}"


def parsed(*entries: str) -> Changelog:
    found = changelog.parse("".join(entries).encode())
    assert found is not None
    return found


def test_what_came_since_a_version() -> None:
    log = parsed(
        entry("3.0-3", f"  * {ONE} (a hole in", "    two lines)"), entry("3.0-2", "  * Import 3.0"),
        entry("3.0-1", f"  * {TWO}"),
    )  # fmt: skip
    assert (log.source, log.versions, log.cut) == ("openssl", ("3.0-3", "3.0-2", "3.0-1"), False)
    since = log.closed_since("3.0-1")
    assert list(since) == [ONE]
    found = since[ONE]
    assert (found.version, found.kind, found.line) == ("3.0-3", MentionKind.CLOSED, f"* {ONE} (a hole in two lines)")
    assert set(log.closed_since("2.0-1")) == {ONE, TWO}
    assert not log.closed_since("3.0-3")
    assert time.gmtime(log.date)[:3] == (2026, 4, 3)


def test_what_was_closed_before_is_not_closed_again() -> None:
    """Patches with a CVE in their name are dropped once upstream has them."""
    dropped = entry("3.1-1", f"  * Drop {ONE}.patch, included upstream")
    log = parsed(dropped, entry("3.0-2", f"  * {ONE}"), entry("3.0-1", "  * x"))
    assert not log.closed_since("3.0-2")
    assert log.closed_since("3.0-1")[ONE].version == "3.0-2"


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([f"  * Partially fix {ONE}"], MentionKind.PARTLY),
        ([f"  * {ONE}: partial fix"], MentionKind.PARTLY),
        (["  * Partial fixes:", f"    - {ONE}", "    - other"], MentionKind.PARTLY),
        (["  * Partial fix for something else", f"  * {ONE}: no more"], MentionKind.CLOSED),
        ([f"  * Revert the fix of {ONE}, it breaks ssh"], MentionKind.NOT),
        ([f"  * revert upstream patch for {ONE}"], MentionKind.NOT),
        ([f"  * backed out the patch for {ONE}"], MentionKind.NOT),
        ([f"  * Backport upstream fix for {ONE}"], MentionKind.CLOSED),
        ([f'  * Revert "zram: convert remaining" ({ONE})'], MentionKind.CLOSED),
        ([f"  * btusb: revert use of devm_kzalloc in btusb ({ONE})"], MentionKind.CLOSED),
        ([f"  * use sk_msg_free_partial to fix partial send ({ONE})"], MentionKind.CLOSED),
        ([f"  * fix overflowing extents when partially writing ({ONE})"], MentionKind.CLOSED),
        ([f"  * This partially addresses {ONE}"], MentionKind.PARTLY),
        ([f"  * {ONE}: fixed only partially"], MentionKind.PARTLY),
        ([f"  * {ONE} does not affect this version"], MentionKind.NOT),
        (["  [ A Person ]", f"  * {ONE}"], MentionKind.CLOSED),
        ([f"  {ONE} without a bullet"], MentionKind.CLOSED),
        ([f"  * SECURITY UPDATE: {TWO}, {ONE}."], MentionKind.CLOSED),
        (["  * a", "    - b", f"      + {ONE}", "  * not affected: c"], MentionKind.CLOSED),
    ],
)
def test_the_words_around_it_count(lines: list[str], kind: MentionKind) -> None:
    told = parsed(entry("3.0-2", *lines), entry("3.0-1", "  * x")).told(ONE)
    assert told is not None
    assert told.kind is kind


def test_partly_then_altogether() -> None:
    log = parsed(entry("3", f"  * {ONE}: the rest"), entry("2", f"  * partially fixes {ONE}"), entry("1", "  * x"))
    assert log.closed_since("1")[ONE].version == "3"


def test_taken_back_and_done_again() -> None:
    log = parsed(
        entry("4", f"  * {ONE} again"), entry("3", f"  * revert {ONE}"), entry("2", f"  * {ONE}"), entry("1", "  * x")
    )
    assert log.closed_since("2")[ONE].version == "4"
    only = parsed(entry("3", f"  * revert {ONE}"), entry("2", f"  * {ONE}"), entry("1", "  * x"))
    assert only.closed_since("1")[ONE].kind is MentionKind.NOT


def test_a_cut_changelog_does_not_reach_back() -> None:
    text = entry("3.0-3", f"  * {ONE}") + "\n# Older entries have been removed from this changelog.\n# To read …\n"
    log = changelog.parse(text.encode())
    assert log is not None
    assert log.cut
    assert (log.reaches("3.0-2"), log.reaches("3.0-3"), log.reaches("3.0-4")) == (False, True, True)
    half = changelog.parse(entry("2", f"  * {ONE}").encode(), whole=False)
    assert half is not None
    assert half.cut


@pytest.mark.parametrize("text", [b"", b"\0" * 1000, b"no changelog\n", b"a (1", b"(1) x; y\n", b" openssl (1) x; y\n"])
def test_what_is_no_changelog(text: bytes) -> None:
    assert changelog.parse(text) is None


def test_only_the_cves_that_are_asked_for() -> None:
    found = changelog.parse(entry("2", f"  * {ONE}", f"  * {TWO}").encode(), only=[TWO])
    assert found is not None
    assert list(found.mentions) == [TWO]


def test_each_cve_of_each_entry_is_found_whatever_surrounds_it() -> None:
    numbers = random.Random(20)
    for _ in range(200):
        wanted: dict[str, set[str]] = {}
        entries = []
        for version in range(numbers.randint(1, 6), 0, -1):
            lines = []
            for _ in range(numbers.randint(0, 8)):
                many = range(numbers.choice([0, 1, 3]))
                names = [f"CVE-{numbers.randint(1999, 2030)}-{numbers.randint(1000, 9999999)}" for _ in many]
                for name in names:
                    wanted.setdefault(name, set()).add(f"1-{version}")
                bullet = numbers.choice(["* ", "- ", "+ ", "", "[ x ] ", "(", "ü "])
                lines.append(" " * numbers.randint(1, 9) + bullet + numbers.choice(["", "fix ", "\t"]) + ", ".join(names))
            entries.append(entry(f"1-{version}", *lines))
        log = parsed(*entries)
        assert {name: {each.version for each in found} for name, found in log.mentions.items()} == wanted


def test_any_bytes_are_read_or_refused() -> None:
    numbers = random.Random(7)
    plain = (entry("2", f"  * {ONE}", "    - x") + entry("1", f"  * partial {TWO}")).encode()
    for _ in range(500):
        text = bytearray(plain)
        for _ in range(numbers.randint(1, 30)):
            text[numbers.randrange(len(text))] = numbers.randrange(256)
        found = changelog.parse(bytes(text))
        if found is not None:
            found.closed_since("1")
            found.reaches("0")


HOSTILE = {
    "deep": entry("2", *[" " * depth + f"- {ONE}" for depth in range(400)]),
    "entries": "".join(f"a ({number}) x;\n" for number in range(100_000)),
    "names": entry("2", *[f"  * CVE-2026-{number:06}, CVE-2027-{number:06}" for number in range(40_000)]),
    "wide": entry("2", "  * " + "x" * 60_000, *[f"    - {ONE}"] * 5000),
    "heads": "a (" + "(" * 100_000,
    "line": "a (1) " + "x" * 1_000_000,
    "ends": "a (1) x;\n" + " -- " * 100_000,
    "mentions": "".join(entry(str(number), f"  * CVE-2026-{number:05}", f"  * {ONE}") for number in range(20_000, 0, -1)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_changelog_is_limited(name: str) -> None:
    found = changelog.parse(HOSTILE[name].encode())
    told = [] if found is None else [each for mentions in found.mentions.values() for each in mentions]
    assert len(told) <= 20_000
    assert max((len(each.line) for each in told), default=0) <= 240
