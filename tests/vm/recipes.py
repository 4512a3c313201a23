"""The blocks of docs/recipes.md."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"


class Recipe(NamedTuple):
    """One section of the page: its heading, and the lines to run."""

    title: str
    text: str


def recipes() -> list[Recipe]:
    """All recipes, in the order of the page: the indented lines of each section."""
    found = []
    for section in _PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        title, *lines = section.splitlines()
        found.append(Recipe(title, "\n".join(line[4:] for line in lines if line.startswith("    "))))
    return found
