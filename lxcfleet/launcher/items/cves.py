"""The launcher's search for CVEs: arguments and answers."""

from __future__ import annotations

from typing import TypedDict


class CveItem(TypedDict):
    """Containers whose packages are looked at."""

    containers: list[tuple[str, int]]
    """Names, and the generation on which each stands; 0: the host's root."""
    generations: list[int]
    """Frozen bases that are looked at for themselves."""
    source: str
    """The file or directory with debsecan's data; empty: there is none."""
    suite: str
    cves: list[str]
    """Only these are looked for, but in all changelogs; none: what changed counts."""


class FoundCve(TypedDict):
    """A CVE in the packages of one source; see patch.cve.findings.CveResult."""

    cve: str
    source: str
    packages: list[str]
    names: list[str]
    """All names that dpkg-query may have for the packages."""
    disk: str
    own: bool
    """Whether some of the packages are not those of the base."""
    began: bool
    without: list[str]
    """Packages and versions without the fix."""
    fixed: str
    line: str
    words: str
    urgency: str
    remote: bool | None
    description: str


class UnreadSource(TypedDict):
    """A source of which it is not known which CVEs its new version closes."""

    source: str
    packages: list[str]
    why: str


class CveSet(TypedDict):
    """A distinct set of packages."""

    found: list[int]
    """Indices of the CVEs that concern it."""
    unread: list[UnreadSource]
    own: bool
    """Whether a container has packages of its own."""
    began: bool
    """Whether it is known with which packages the containers began."""


class CveData(TypedDict):
    """debsecan's data, or why there is none."""

    file: str
    modified: float
    """When it was written, in seconds since the epoch."""
    problem: str


class CveSets(TypedDict):
    """The answer."""

    found: list[FoundCve]
    sets: list[CveSet]
    containers: dict[str, int]
    """The set of each."""
    generations: dict[str, int]
    problems: dict[str, str]
    """Why nothing is known of a container."""
    named: list[str]
    """Those of the CVEs asked for that any changelog or the data names."""
    data: CveData | None
