"""The record of one generation: a value, and its text on disk."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, asdict, dataclass, fields
from datetime import datetime
from itertools import groupby
from typing import Any

from lxcfleet.errors import Broken
from lxcfleet.spec.reading import ondisk

_VERSION = 1
SHEET = re.compile(r"(s([1-9][0-9]{0,8}))(\.[a-z-]+)?")
"""The names of sheets: an s, and the number of the generation that was frozen with them; then the word for the file system
that they are on, if it is another one than the records'."""


@dataclass(frozen=True)
class Generation:
    """A frozen base."""

    number: int
    """1 or more. No number is given twice."""
    created: str
    """When it was frozen, ISO 8601 in UTC."""
    sheets: tuple[str, ...]
    """The names of its sheets, the topmost first. A file is that of the topmost sheet which has it. Those of one freeze, on
    different file systems, have nothing but directories in common."""
    why: str
    """The reason for which it was frozen."""
    files: int
    """Files and symbolic links in it, over all of its sheets."""
    linked: int
    """Those of them that were made with it as links to the host's own."""
    copied: int
    """Those of them that were made with it as copies."""
    bytes: int
    """Disk space that it took, on all file systems."""
    packages: str
    """The SHA-256 of dpkg's status; of nothing, if the base has none."""
    linked_foreign: int
    """Files that no package owns and that are linked all the same, as they are too many or too large to be copied: what a
    program writes into one of them in place shows in the generation."""
    linked_foreign_bytes: int = 0
    """Their size."""

    @property
    def own(self) -> str:
        """The name of the sheet that was made with it."""
        return self.sheets[0]

    @property
    def whole(self) -> bool:
        """Whether its own sheets have the whole base, and not only what differs from others."""
        return len(self.levels) == 1

    @property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Its sheets, those together that were made together; the topmost first."""
        return tuple(tuple(names) for _, names in groupby(self.sheets, lambda name: name.partition(".")[0]))


_DATA: dict[str, type] = {
    "number": int, "created": str, "sheets": list, "why": str, "files": int, "linked": int, "copied": int, "bytes": int,
    "packages": str, "linked_foreign": int, "linked_foreign_bytes": int,
}  # fmt: skip
_FORMER = frozenset(("rejected", "held", "held_until"))
"""Keys that a former version wrote, always without a value: see patch.rejections and patch.holds."""


def dump(generation: Generation) -> str:
    """The text of the record."""
    return json.dumps({"version": _VERSION, **asdict(generation)}, indent=1) + "\n"


def parse(text: bytes, where: str) -> Generation:
    """The record that ``text`` is; ``where``: its path, for errors. Raises Broken."""
    try:
        data = ondisk.parse(text)
        _check(data)
    except ValueError as error:
        raise Broken(
            "the record of a generation can't be used", why=f"{where}: {error}",
            hint="no container starts on it; once none uses it, remove it: the next patch freezes another",
        ) from error  # fmt: skip
    values: dict[str, Any] = {key: value for key, value in data.items() if key in _DATA}
    values["sheets"] = tuple(data["sheets"])
    return Generation(**values)


def _check(data: Any) -> None:
    """Raises ValueError for the first mistake."""
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    if data.get("version") != _VERSION:
        raise ValueError(f"its version is {data.get('version')!r}, and {_VERSION} is the only one that is known")
    required = [each.name for each in fields(Generation) if each.default is MISSING]
    if missing := [name for name in required if name not in data]:
        raise ValueError(f"{missing[0]} is missing; the file may have been cut off")
    for key, value in data.items():
        if key == "version" or key in _FORMER:
            continue
        if key not in _DATA:
            raise ValueError(f"{key!r} is not known")
        if type(value) is not _DATA[key] or (type(value) is int and value < 0):
            raise ValueError(f"{key} is {value!r}")
    sheets = data["sheets"]
    if not sheets or len(set(map(repr, sheets))) < len(sheets) or not all(
        isinstance(name, str) and SHEET.fullmatch(name) for name in sheets
    ):  # fmt: skip
        raise ValueError(f"sheets are {sheets!r}")
    if data["number"] < 1:
        raise ValueError("number is 0")
    if not data["created"]:
        raise ValueError("created is empty")
    datetime.fromisoformat(data["created"])
