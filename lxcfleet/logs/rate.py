"""How many lines of one container are passed on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
"""A line counts once for each KiB of it that was begun: the host's log has room for so many bytes, whatever their lines."""


@dataclass
class Allowance:
    """So many lines a second, and a number of lines at once.

    A container is judged by what it prints, not by how fast others take it: what has waited in its console's file, as
    nobody could take it, was printed at some earlier time. So the allowance grows without a bound until all was read.
    """

    rate: int
    """Lines a second; 0: any number."""
    burst: int
    left: float
    """Lines that may be passed on now."""
    at: float
    """When ``left`` was right, in seconds of any clock."""

    def refill(self, now: float) -> int:
        """The number of lines that may be passed on at this moment."""
        if now > self.at:
            self.left += (now - self.at) * self.rate
        self.at = now
        return int(self.left)

    def cost(self, size: int) -> int:
        """For how many lines one of so many bytes counts. It never counts for more than may be passed on at once."""
        return min(max(1, -(-size // KIB)), max(1, self.burst))

    def rest(self, now: float) -> None:
        """All was read that was printed until this moment: what the container did not use does not add up any further."""
        self.refill(now)
        self.left = min(self.left, float(self.burst))
