"""The programs that the fleet's name server asks: root reaches them, and no other user of the host."""

from __future__ import annotations

import socket
import subprocess
from ipaddress import IPv4Address

from lxcfleet.host.net import dnsmasq

from .harness import source


def _ask_as_a_user(address: str, port: int) -> None:
    """Ask over UDP and TCP, as root and as a user of the host; fails if root is refused, or the user is not."""
    import os
    import socket

    def refused() -> list[str]:
        found = []
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(socket.AF_INET, kind) as asks:
                try:
                    asks.connect((address, port))
                    asks.send(b"x")
                except (PermissionError, ConnectionRefusedError) as error:
                    found.append(type(error).__name__)
        return found

    assert refused() == []
    os.setgroups([])
    os.setgid(60001)
    os.setuid(60001)
    assert refused() == ["PermissionError", "ConnectionRefusedError"]


def ask(server: str) -> None:
    """Fails unless only root reaches them. ``server``: the name server's address."""
    address = str(dnsmasq.responder_address(IPv4Address(server)))
    # The stand-in is there only while the name server is exchanged.
    with socket.create_server((address, dnsmasq.STAND_IN_PORT)):
        for port in (dnsmasq.RESPONDER_PORT, dnsmasq.STAND_IN_PORT):
            subprocess.run(["/usr/bin/python3", "-c", source(_ask_as_a_user, (address, port))], check=True)
