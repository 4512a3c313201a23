"""The directories that all other paths lie in."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self


@dataclass(frozen=True)
class Roots:
    """The directories of a fleet."""

    lxc: Path = Path("/var/lib/lxc")
    run: Path = Path("/run/lxcfleet")
    etc: Path = Path("/etc/lxcfleet")
    generation: int = 0
    """Of which base the mask is meant: the number of a generation; 0: the host's root."""

    NEW_PREFIX: ClassVar[str] = ".lxcfleet-new-"
    GONE_PREFIX: ClassVar[str] = ".lxcfleet-gone-"
    PROBE_PREFIX: ClassVar[str] = ".lxcfleet-probe-"
    """Of directories in which overlays are tried."""

    @classmethod
    def from_environment(cls) -> Self:
        """The usual paths, or those that LXCFLEET_LXC, LXCFLEET_RUN and LXCFLEET_ETC name (a fleet for tests)."""
        usual = cls()
        return cls(
            lxc=Path(os.environ.get("LXCFLEET_LXC", usual.lxc)),
            run=Path(os.environ.get("LXCFLEET_RUN", usual.run)),
            etc=Path(os.environ.get("LXCFLEET_ETC", usual.etc)),
        )

    def on(self, generation: int) -> Self:
        """The same, with another base."""
        return self if generation == self.generation else replace(self, generation=generation)

    @cached_property
    def _of_base(self) -> str:
        return f"-{self.generation}" if self.generation else ""

    def environment(self) -> dict[str, str]:
        """The variables that ``from_environment`` needs to give these paths again, for child processes."""
        return {"LXCFLEET_LXC": str(self.lxc), "LXCFLEET_RUN": str(self.run), "LXCFLEET_ETC": str(self.etc)}

    @cached_property
    def state(self) -> Path:
        """The state that outlives containers and boots: /var/lib/lxcfleet; for another fleet than the usual one, inside its
        own."""
        usual = Roots().lxc
        return usual.with_name("lxcfleet") if self.lxc == usual else self.lxc / ".lxcfleet"
