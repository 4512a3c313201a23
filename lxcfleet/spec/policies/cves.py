"""The settings about CVEs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.rows import CheckedSection, row
from lxcfleet.spec.reading.types import Text

CVE = re.compile(r"CVE-[0-9]{4}-[0-9]{4,10}")
_SUITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_FILE = "file://"


def parse_cve(text: str) -> str:
    """The number of a CVE, in capitals. Raises InvalidInput."""
    if not CVE.fullmatch(text.upper()):
        raise InvalidInput(f"{text[:40]!r} is no CVE", hint="they are written as CVE-2026-1234")
    return text.upper()


@dataclass(frozen=True)
class CveSettings(CheckedSection):
    """The data that `lxcfleet cve` has besides changelogs."""

    source: str = row(
        Text(), "A file with debsecan's data, or a directory with a file for each suite, as a path or file:///PATH; empty:"
        " none. lxcfleet fetches nothing: a mirror has to bring it up to date.", default="",
    )  # fmt: skip
    suite: str = row(Text(), "The suite whose file counts, such as bookworm; empty: the host's.", default="")

    @property
    def path(self) -> str:
        """The file or directory; empty: there is none."""
        return unquote(self.source.removeprefix(_FILE)) if self.source.startswith(_FILE) else self.source

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        if self.source and not self.path.startswith("/"):
            yield "source", f"{self.source!r} is no absolute path: lxcfleet fetches nothing, the data has to be on this host"
        if self.suite and not _SUITE.fullmatch(self.suite):
            yield "suite", f"{self.suite!r} is no name of a suite"
