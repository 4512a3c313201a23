"""The containers that go along with the next patch that goes well, each with the generation that it was put on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from lxcfleet.host.kernel import tree
from lxcfleet.paths import Paths
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)


class Rescued:
    """The note of them, which survives a reboot of the host."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def all(self) -> dict[str, int]:
        """Them by name. A record that was damaged counts as none, and the log says so."""
        try:
            found = ondisk.record(self._paths.rescued)
            return {str(name): int(number) for name, number in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            told = "%s can't be read: %s. Which containers got their former base back by themselves is not known"
            log.error(told, self._paths.rescued, error)
            return {}

    def keep(self, rescued: Mapping[str, int]) -> None:
        """Note these, and no others. Raises OSError."""
        self._paths.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        tree.write(self._paths.rescued, json.dumps(dict(rescued)), sync=True)
