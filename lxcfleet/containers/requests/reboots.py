"""When a container that rebooted from inside is started again. Pure."""

from __future__ import annotations

CALM_SECONDS = 60.0
"""Seconds without a reboot after which the next one counts as the first."""
FREE_REBOOTS = 3
"""So many reboots in a row are followed at once."""
LONGEST_WAIT = 60.0


class Reboots:
    """Which containers reboot again and again. An init that does so at once would keep all processors busy."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, int]] = {}
        """By name: the moment of the next start, and the reboots with less than ``CALM_SECONDS`` between them."""

    def wait(self, name: str, moment: float) -> float:
        """A container reboots; the seconds that its start has to wait."""
        self._known = {each: found for each, found in self._known.items() if moment - found[0] < CALM_SECONDS}
        count = self._known.get(name, (0.0, 0))[1] + 1
        seconds = 0.0 if count <= FREE_REBOOTS else min(LONGEST_WAIT, 2.0 ** (count - FREE_REBOOTS))
        self._known[name] = moment + seconds, count
        return seconds
