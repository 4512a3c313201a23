"""The containers that go along with the next patch that goes well, each with the generation that it was put on."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths


class Rescued:
    """The note of them, which survives a reboot of the host."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def all(self) -> dict[str, int]:
        """Them by name. A record that was damaged counts as none."""
        try:
            found = json.loads(self._paths.rescued.read_bytes())
            return {str(name): int(number) for name, number in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def keep(self, rescued: Mapping[str, int]) -> None:
        """Note these, and no others. Raises OSError."""
        self._paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        tree.write(self._paths.rescued, json.dumps(dict(rescued)), sync=True)
