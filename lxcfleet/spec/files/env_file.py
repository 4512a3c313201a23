"""Files with NAME=VALUE lines, as `env_files` of a fleet file names them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.names import check_variable

_QUOTES = ("'", '"')


def read(text: str, where: str, complain: Callable[[str], object]) -> Iterator[tuple[str, str, int]]:
    """Each variable with its value and its line. Empty lines, and those that begin with #, say nothing. A value may stand in
    quotes, which do not belong to it; nothing in it is expanded."""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        name, equals, value = stripped.partition("=")
        if not equals:
            complain(f"{where}:{number}: expected NAME=VALUE")
            continue
        try:
            check_variable(name, value)
        except InvalidInput as error:
            complain(f"{where}:{number}: {error.message}")
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES:
            value = value[1:-1]
        yield name, value, number
