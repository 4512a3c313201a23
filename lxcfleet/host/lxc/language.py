"""The language that a container's own files ask for. Only processes inside the container read them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from lxcfleet.spec.terms import USUAL_LANGUAGE

_FILES = ("etc/locale.conf", "etc/default/locale")
"""locale.conf(5), and the file of Debian's that was there before."""
_MOST = 4096
_LINE = re.compile(r"""\s*(LANG|LC_[A-Z]+)=(["']?)([A-Za-z0-9_.@-]{1,64})\2\s*""")


def variables(root: Path = Path("/")) -> dict[str, str]:
    """LANG and LC_* as the first of the container's files has them that says anything; else the usual language."""
    for name in _FILES:
        try:
            # A FIFO must not keep the command waiting.
            descriptor = os.open(root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue
        with open(descriptor, "rb") as file:
            text = file.read(_MOST) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
        lines = text.decode(errors="replace").splitlines()
        found = {match[1]: match[3] for line in lines if (match := _LINE.fullmatch(line))}
        if found:
            return {"LANG": USUAL_LANGUAGE, **found}
    return {"LANG": USUAL_LANGUAGE}
