"""Names of systemd's units; systemd.unit(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lxcfleet.errors import InvalidInput

_KINDS = ("service", "socket", "target", "timer", "path", "mount", "automount", "slice", "swap")
UNIT = re.compile(rf"[A-Za-z0-9:_.\\@-]{{1,200}}\.({'|'.join(_KINDS)})")
"""The name of a unit."""
_MOST = 64


def check_unit(text: str) -> str:
    """``text`` itself, if it can be the name of a unit. Raises InvalidInput."""
    if not UNIT.fullmatch(text):
        raise InvalidInput(f"{text!r} is not a unit's name, such as ssh.service")
    return text


def parse_unit(text: str) -> str:
    """The name of a unit; a name without a kind means a service, as with systemctl. Raises InvalidInput."""
    return check_unit(text if text.rpartition(".")[2] in _KINDS else f"{text}.service")


def check_units(units: Sequence[str]) -> None:
    """Raise InvalidInput for a list that names a unit twice, or too many."""
    if len(units) > _MOST:
        raise InvalidInput(f"a container can have at most {_MOST} of the host's units")
    for number, name in enumerate(units):
        if name in units[:number]:
            raise InvalidInput(f"{name} is named twice")
