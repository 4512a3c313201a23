"""Debian changelogs: which version closed which CVE. Pure, and for hostile texts, too.

deb-changelog(5). No field says what a version closes: its entry names CVEs in plain text. A text that names one may also say
that only a part is mended, or that a change was taken back, so each mention keeps its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import cached_property

from lxcfleet.host.packages import order
from lxcfleet.spec.policies.cves import CVE

_CVE = re.compile(CVE.pattern.encode())
_HEAD = re.compile(rb"^([a-zA-Z0-9][a-zA-Z0-9+.-]{0,100}) \(([^() \t\n]{1,200})\)[^;\n]*;.*$", re.MULTILINE)
"""The first line of an entry: source package, version, suites."""
_TRAILER = re.compile(rb"^ -- [^\n]{0,200}>  ([^\n]{10,60})$", re.MULTILINE)
"""The last line of an entry: who, and when."""
_TRIMMED = b"\n# Older entries have been removed from this changelog"
"""debhelper's mark of a changelog that is cut; dh_installchangelogs(1)."""
_ITEM = re.compile(r"^(\s*)([*+-]|\[)\s?")
_MARKS = frozenset("*+-[")
"""The characters with which an item begins."""
_NAME = "CVE-"
_PARTLY = re.compile(
    r"\b((partial(ly)?|partly)\s+(\w+\s+){0,2}?(fix|mitigat|address|resol|clos|solution|patch|CVE)"
    r"|(fix|mitigat|address|resolv|clos)\w*\s+(\w+\s+){0,2}?(partially|partly)\b"
    r"|not fully|not completely)",
    re.IGNORECASE,
)
"""Not `partial` alone: many holes have to do with partial reads, and the like."""
_NOT = re.compile(
    r"\b((revert\w*|back(s|ed|ing)?\s+out|roll(s|ed|ing)?\s+back)\s+(\w+\s+){0,4}?(fix|patch|CVE-)"
    r"|not (yet )?fixed|unfixed|still (vulnerable|affected)|not (affected|vulnerable)|unaffected"
    r"|(does|do|did) not affect|doesn't affect)",
    re.IGNORECASE,
)
"""Not each `revert`: holes are closed by reverting what brought them, too."""
PART = re.compile(r"\bpart(ly|ial|ially)\b", re.IGNORECASE)
"""Words upon which a line is shown in any case."""
_MOST_MENTIONS = 20_000
_MOST_ENTRIES = 20_000
_LINE = 240
"""Characters of an item that are kept."""
_ENTRY = 64 << 10
"""Bytes of an entry in which mentions are looked for."""
_OLDEST = 50
"""How many of the oldest entries are looked at for one that is old enough: it is the last, unless versions went back."""
_LEVELS = 4
"""How many of the items above one count for it."""


class MentionKind(StrEnum):
    """The meaning of the words of a mention."""

    CLOSED = "closed"
    PARTLY = "partly"
    """Only a part of it is mended."""
    NOT = "not"
    """A change is taken back, or it is no fix at all."""


@dataclass(frozen=True)
class Mention:
    """A CVE in the entry of one version."""

    version: str
    kind: MentionKind
    line: str
    """The item that names it, shortened."""


@dataclass(frozen=True)
class Changelog:
    """A changelog, as far as it tells of CVEs."""

    source: str
    versions: tuple[str, ...]
    """Of all entries, the newest first."""
    mentions: Mapping[str, Sequence[Mention]] = field(default_factory=dict)
    """By CVE, the newest first."""
    cut: bool = False
    """Whether older entries are missing."""
    date: float = 0.0
    """Of the newest entry, in seconds since the epoch; 0: not known."""

    def reaches(self, version: str) -> bool:
        """Whether it has all entries after ``version``: an entry of it, or of an older one, is there."""
        if version in self._places:
            return True
        return any(order.compare(each, version) <= 0 for each in reversed(self.versions[-_OLDEST:]))

    def closed_since(self, version: str) -> dict[str, Mention]:
        """The CVEs that entries after ``version`` name and older ones have not closed, each with the mention that counts."""
        found = {}
        for cve in self.mentions:
            told = self.told(cve)
            if told is not None and not self.includes(version, told.version):
                found[cve] = told
        return found

    def includes(self, version: str, change: str) -> bool:
        """Whether the source of ``version`` has what the entry of another version, ``change``, tells.

        The order of the entries decides, as 1-2~deb12u1 is made from 1-2, and older than that by its number.
        """
        if version in self._places and change in self._places:
            return self._places[change] >= self._places[version]
        return order.compare(version, change) >= 0

    @cached_property
    def _places(self) -> Mapping[str, int]:
        """The place of each version among the entries, the newest first."""
        return {version: place for place, version in reversed([*enumerate(self.versions)])}

    def told(self, cve: str) -> Mention | None:
        """The mention that counts: the first that closed it and was not taken back; else the last one, which leaves doubt."""
        fixed, last = None, None
        for mention in reversed(self.mentions.get(cve, ())):
            last = mention
            if mention.kind is MentionKind.NOT:
                fixed = None
            elif mention.kind is MentionKind.CLOSED and fixed is None:
                fixed = mention
        return fixed or last


def parse(text: bytes, *, whole: bool = True, only: Sequence[str] = ()) -> Changelog | None:
    """The changelog; None if that is none. ``whole``: whether ``text`` has its end. ``only``: no other CVEs count."""
    heads = []
    for match in _HEAD.finditer(text):
        heads.append(match)
        if len(heads) > _MOST_ENTRIES:
            whole = False
            break
    if not heads:
        return None
    wanted = {each.encode() for each in only}
    mentions: dict[str, list[Mention]] = {}
    count = at = 0
    for number, head in enumerate(heads):
        end = heads[number + 1].start() if number + 1 < len(heads) else len(text)
        if at < head.end() and (at := text.find(_NAME.encode(), head.end())) < 0:
            break  # no further entry names one
        if at >= end:
            continue
        named = set(_CVE.findall(text, head.end(), min(end, head.end() + _ENTRY)))
        if wanted:
            named &= wanted
        if not named:
            continue
        if (count := count + len(named)) > _MOST_MENTIONS:
            whole, heads = False, heads[: max(number, 1)]
            break
        entry = text[head.end() : min(end, head.end() + _ENTRY)].decode("utf-8", "replace")
        version = _text(head[2])
        for cve, kind, line in _items(entry, {each.decode() for each in named}):
            mentions.setdefault(cve, []).append(Mention(version, kind, line))
    versions = tuple(_text(head[2]) for head in heads)
    return Changelog(_text(heads[0][1]), versions, mentions, cut=not whole or _TRIMMED in text, date=_date(text))


def _date(text: bytes) -> float:
    match = _TRAILER.search(text)
    try:
        return parsedate_to_datetime(_text(match[1])).timestamp() if match else 0.0
    except (ValueError, OverflowError):
        return 0.0


def _text(found: bytes) -> str:
    return found.decode("utf-8", "replace")


def _items(entry: str, named: set[str]) -> Iterator[tuple[str, MentionKind, str]]:
    """Each CVE of an entry once, with what the item that names it says, and those above that item."""
    above: list[tuple[int, str]] = []
    items: list[tuple[str, str]] = []
    """The words of each item, and of those above it."""
    indent, lines = 0, list[str]()

    def end() -> None:
        if lines:
            words = " ".join(lines)
            if _NAME in words:  # most items name none
                items.append((words, " ".join(text for _, text in above[-_LEVELS:])))
            above.append((indent, words[:_LINE]))

    for line in entry.split("\n"):
        bare = line.strip()
        if bare[:1] in _MARKS and (match := _ITEM.match(line)) is not None:
            end()
            indent, lines = len(match[1]), [bare]
            while above and above[-1][0] >= indent:  # they are ever further in
                above.pop()
        elif line.startswith(" -- "):
            break
        elif bare:
            lines.append(bare)
    end()
    told: dict[str, tuple[MentionKind, str]] = {}
    for words, over in items:
        for cve in named.intersection(CVE.findall(words)):
            kind = _kind(f"{over} {words}")
            if cve not in told or kind is not MentionKind.CLOSED:
                told[cve] = kind, words[:_LINE]
    yield from ((cve, kind, words) for cve, (kind, words) in told.items())


def _kind(words: str) -> MentionKind:
    if _NOT.search(words):
        return MentionKind.NOT
    return MentionKind.PARTLY if _PARTLY.search(words) else MentionKind.CLOSED
