"""The operator's rules for what containers must not see: the files ``mask.d/*.yaml``, and how they are read."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.container.unit_names import UNIT
from lxcfleet.spec.reading.reader import Fields

MAX_FILE = 1 << 20
"""The most bytes that one of the operator's files may have."""


class RuleKind(StrEnum):
    """The effect of a rule on its path."""

    HIDE = "hide"
    """The path does not exist."""
    EMPTY = "empty"
    """The path exists, with the host's owner and mode, but it is empty."""
    SHOW = "show"
    """The path shows everything that no rule further down hides, even if its parent directory is hidden or empty."""


@dataclass(frozen=True)
class MaskRule:
    """A path and what is done with it; ``why`` names where the rule comes from."""

    path: str
    kind: RuleKind
    why: str
    operator: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.path!r} ({self.why})"


@dataclass(frozen=True)
class Rules:
    """The content of the operator's files. ``replace`` maps a path to its new content and the file that says so."""

    rules: tuple[MaskRule, ...] = ()
    replace: tuple[tuple[str, str, str], ...] = ()
    units: tuple[str, ...] = ()


def load(directory: Path) -> Rules:
    """The operator's rules: ``*.yaml`` in ``directory``, in the order of their names.

    Raises InvalidInput with all mistakes in all of these files, each with file and key.
    """
    complaints: list[str] = []
    rules: dict[str, MaskRule] = {}
    replace: dict[str, tuple[str, str, str]] = {}
    units: list[str] = []
    for file in operator_files(directory):
        fields = Fields(_parse(file, complaints), str(file), complaints)
        for kind in RuleKind:
            for number, path in enumerate(fields.texts(kind)):
                key = f"{kind}[{number}]"
                if _check_path(fields, key, path):
                    rule = MaskRule(path, kind, f"{file.name}: {key}", operator=True)
                    _check_conflict(fields, key, rule, rules.get(path), path in replace)
                    rules[path] = rule
        for path, content in fields.pairs("replace", lambda _path, _content: None).items():
            if _check_path(fields, f"replace.{path}", path):
                if path in rules or path in replace:
                    fields.complain(f"replace.{path}", "another rule is about the same path")
                replace[path] = (path, content, f"{file.name}: replace")
        for number, unit in enumerate(fields.texts("units")):
            if UNIT.fullmatch(unit):
                units.append(unit)
            else:
                fields.complain(f"units[{number}]", f"{unit!r} is not a unit's name, such as ssh.service")
        fields.close()
    if complaints:
        raise InvalidInput(
            f"the mask's rules in {directory} are wrong",
            why="\n".join(complaints),
            hint="correct them (see `lxcfleet config check`); until then no container starts, and those that run go on",
        )
    return Rules(tuple(rules.values()), tuple(replace.values()), tuple(units))


def operator_files(directory: Path) -> list[Path]:
    """The files that ``load`` reads."""
    try:
        names = sorted(path.name for path in directory.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidInput(f"{directory} can't be read", why=error.strerror or "") from error
    return [directory / name for name in names if name.endswith(".yaml") and not name.startswith(".")]


def _check_path(fields: Fields, key: str, path: str) -> bool:
    parts = path.split("/")
    if path == "/" or parts[0] != "" or any(part in ("", ".", "..") for part in parts[1:]):
        fields.complain(key, f"{path!r} is not an absolute path without '.', '..' and doubled slashes")
        return False
    return True


def _check_conflict(fields: Fields, key: str, rule: MaskRule, other: MaskRule | None, replaced: bool) -> None:
    if replaced or (other is not None and other.kind is not rule.kind):
        fields.complain(key, f"another rule ({other.why if other else 'replace'}) is about the same path")


def _parse(file: Path, complaints: list[str]) -> object:
    """The YAML document in ``file``; if it is wrong, None, and the mistakes are added to ``complaints``."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            complaints.append(f"{file}: not a regular file")
            return None
        if status.st_size > MAX_FILE:
            complaints.append(f"{file}: larger than {MAX_FILE} bytes")
            return None
        text = file.read_bytes()
    except OSError as error:
        complaints.append(f"{file}: {error.strerror}")
        return None
    # Most hosts have no such file, and the import takes longer than all else here.
    from lxcfleet.spec.reading import strict_yaml  # noqa: PLC0415

    try:
        return strict_yaml.load(text)
    except ValueError as error:
        complaints.append(f"{file}: {error}")
        return None
