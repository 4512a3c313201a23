"""A fleet file with the files that it names, before anything in it is understood."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading import marked_yaml
from lxcfleet.spec.reading.reader import Marked

ENV_FILES = "env_files"
"""The key that names files with variables."""


@dataclass(frozen=True)
class Sources:
    """A fleet file with the files that it names."""

    text: str
    where: str = "fleet.yaml"
    """Its name, for complaints."""
    files: Mapping[str, str] = field(default_factory=dict)
    """The text of each file in ``env_files``, by the name that stands there."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why others could not be read."""


def env_files(text: str, where: str) -> dict[str, str]:
    """The names in all ``env_files`` of a fleet file, each with its place; as far as it can be read."""
    found: dict[str, str] = {}

    def collect(value: object) -> None:
        if not isinstance(value, Marked):
            return
        for key, inner in value.items():
            if key == ENV_FILES and isinstance(inner, list):
                found.update({name: value.places[key] for name in inner if isinstance(name, str)})
            collect(inner)

    try:
        collect(marked_yaml.load(text.encode("utf-8", "surrogatepass"), where, lambda _: None))
    except InvalidInput:
        return {}
    return found


def in_order(complaints: Iterable[str]) -> list[str]:
    """Complaints in the order of lines, each once."""

    def line(text: str) -> tuple[str, int]:
        found = re.match(r"(.*?):([0-9]+): ", text)
        return (found[1], int(found[2])) if found else ("", 0)

    return sorted(dict.fromkeys(complaints), key=line)
