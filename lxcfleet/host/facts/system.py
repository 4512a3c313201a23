"""The system and release that the host says it has. That may change while a daemon runs: by a release upgrade.

Python's own function for that, platform.freedesktop_os_release, reads the file once in a process's life.
"""

from __future__ import annotations

from pathlib import Path

FILES = (Path("/etc/os-release"), Path("/usr/lib/os-release"))


def parse(text: str) -> dict[str, str]:
    """The keys and values of an os-release; os-release(5)."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {key.strip(): value.strip().strip("\"'") for key, sign, value in pairs if sign}


def release() -> dict[str, str]:
    """The keys and values of the host's os-release at this moment; empty if there is none that can be read."""
    for file in FILES:
        try:
            return parse(file.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
    return {}
