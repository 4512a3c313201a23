"""Writes etc/lxcfleet.catalog, the messages of the journal, from lxcfleet.logs.messages. `make docs` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lxcfleet.logs.messages import catalogue

FILE = Path(__file__).resolve().parent.parent / "etc" / "lxcfleet.catalog"

if __name__ == "__main__":
    FILE.write_text(catalogue(), encoding="utf-8")
