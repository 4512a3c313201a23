"""Writes docs/schema/*.json from the rows of settings and specs. `make docs` runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lxcfleet.spec.files.schema import FILES

PLACE = Path(__file__).resolve().parent / "schema"


def texts() -> dict[str, str]:
    """Each file's name and text."""
    return {name: json.dumps(make(), indent=2, ensure_ascii=False) + "\n" for name, make in FILES.items()}


if __name__ == "__main__":
    for name, text in texts().items():
        (PLACE / name).write_text(text, encoding="utf-8")
