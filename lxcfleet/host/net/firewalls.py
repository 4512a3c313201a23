"""Which firewall the operator has put on the host, for messages that have to name one."""

from __future__ import annotations

from pathlib import Path

_UFW = Path("/etc/ufw/ufw.conf")


def ufw_enabled(file: Path = _UFW) -> bool:
    """Whether ufw is on, by its own settings; ufw(8)."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip().lower() == "enabled=yes" for line in lines)
