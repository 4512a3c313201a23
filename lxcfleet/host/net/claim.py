"""Claims on networks: two daemons that look for a free one at the same moment must not find the same."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

PORT = 952
"""Below 1024, so that no user of the host can claim anything."""


class Claim:
    """A port of a loopback address, taken as long as the claim holds. The kernel gives it back when the process ends."""

    def __init__(self, address: IPv4Address) -> None:
        """``address``: of the loopback network, another for each thing that can be claimed. Raises OSError if it is taken."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._socket.bind((str(address), PORT))
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Give it up."""
        self._socket.close()
