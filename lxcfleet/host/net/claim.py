"""Claims on networks: two daemons that look for a free one at the same moment must not find the same."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

PORT = 952
"""Below 1024, so that no user of the host can claim anything."""


class Claim:
    """A port of a loopback address, taken as long as the claim holds. The kernel gives it back when the process ends."""

    def __init__(self, address: IPv4Address, *needed: int) -> None:
        """``address``: of the loopback network, another for each thing that can be claimed; ``needed``: its ports that nobody
        may have in this moment. Raises OSError if one is taken."""
        self._socket = _bound(address, PORT)
        try:
            for port in needed:
                _bound(address, port).close()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Give it up."""
        self._socket.close()


def _bound(address: IPv4Address, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.bind((str(address), port))
    except OSError:
        made.close()
        raise
    return made
