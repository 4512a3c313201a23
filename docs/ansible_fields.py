"""Writes the fields of containers into the Ansible module, which can't import them. `make docs` runs it."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lxcfleet.spec.container.fields import askable
from lxcfleet.spec.container.health import HealthType
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.rows import Row
from lxcfleet.spec.reading.types import Choice, Flag, Items, Number, Pairs, Texts, Whole

MODULE = Path(__file__).resolve().parent.parent / "ansible/plugins/modules/containers.py"
WIDTH = 110


def page(text: str) -> str:
    """The module's text with all fields in it."""
    for place, make in (("documentation", _documentation), ("arguments", _arguments)):
        begin, end = f"# {place} of fields: written by `make docs`\n", f"# end of the {place} of fields\n"
        block = "".join(f"{line}\n" for line in make())
        pattern = rf"( *){re.escape(begin)}.*?\1{re.escape(end)}"
        text, found = re.subn(
            pattern, lambda m, b=begin, e=end, t=block: f"{m[1]}{b}{t}{m[1]}{e}", text, flags=re.DOTALL  # type: ignore[misc]
        )
        assert found == 1, place
    return text


def _type(row: Row) -> dict[str, Any]:
    """What Ansible is to know of a value."""
    match row.type:
        case Flag():
            return {"type": "bool"}
        case Whole():
            return {"type": "int"}
        case Seconds():
            return {"type": "str"}
        case Number():
            return {"type": "float"}
        case Choice() if not row.type.prefix:
            return {"type": "str", "choices": [str(word) for word in row.type.words]}
        case Texts() | Items():
            return {"type": "list", "elements": "str"}
        case Pairs() | HealthType():
            return {"type": "dict"}
        case _:
            return {"type": "str"}


def _documentation() -> Iterator[str]:
    for key, row in askable().items():
        yield f"  {key}:"
        yield "    description:"
        yield "      - >-"
        usual = f" The default is {row.usual}." if row.usual else ""
        help_ = re.sub(r"`([^`]+)`", r"C(\1)", row.help) + usual
        yield from textwrap.wrap(help_, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
        for name, value in _type(row).items():
            yield f"    {name}: [{', '.join(value)}]" if isinstance(value, list) else f"    {name}: {value}"


def _arguments() -> Iterator[str]:
    yield "FIELDS = dict("
    for key, row in askable().items():
        words = ", ".join(f"{name}={value!r}".replace("'", '"') for name, value in _type(row).items())
        shown = ", no_log=False" if key == "secrets" else ""  # references only; ansible-test wants that said of such a name
        yield f"    {key}=dict({words}{shown}),"
    yield ")"
    yield "OPTIONS = dict("
    for key, row in askable().items():
        if row.option:
            yes, _, no = row.option[-1].partition("/")
            yield f'    {key}=("{yes}", "{no}"),'
    yield ")"


if __name__ == "__main__":
    MODULE.write_text(page(MODULE.read_text(encoding="utf-8")), encoding="utf-8")
