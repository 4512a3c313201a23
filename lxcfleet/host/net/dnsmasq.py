"""The fleet's name server: Debian's dnsmasq, on the bridge only, with its own files; and the responder behind dnsmasq."""

from __future__ import annotations

import errno
import pwd
import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path

from lxcfleet import __version__
from lxcfleet.errors import Unsupported
from lxcfleet.host.net import resolved
from lxcfleet.host.process.standing import Standing
from lxcfleet.paths import Paths

PROGRAM = Path("/usr/sbin/dnsmasq")
USER = "dnsmasq"
"""The package dnsmasq-base makes this user."""
PORT = 53
RESPONDER_PORT = 953
"""Below 1024, so that no user of the host can answer instead."""
MOST_WAITING = 20_000
"""Questions that may wait for answers of other name servers at a time, for ten seconds each; 150 by default. One container
can send half as many in that time (network.rules.rules.MOST_QUESTIONS): it fills no other's places.
"""
STAND_IN_PORT = 954
"""The port of the stand-in, at the responder's address."""


_NOBODYS = IPv4Address("127.53.53.53")
"""An address of the host on which nobody listens."""


def user() -> int | None:
    """The name server's user; None: the host has none, as it has no dnsmasq."""
    try:
        return pwd.getpwnam(USER).pw_uid
    except KeyError:
        return None


def responder_address(gateway: IPv4Address) -> IPv4Address:
    """The responder's address: one in the loopback network that is only this fleet's."""
    return IPv4Address(b"\x7f" + gateway.packed[1:])


def render(bridge: str, domain: str, gateway: IPv4Address, paths: Paths) -> str:
    """dnsmasq's configuration; dnsmasq(8).

    dnsmasq answers for the domain from a directory that it watches (inotify), so it knows at once when a file is added,
    changed or removed. For other names of the domain it asks the responder, and for all other names the host's name servers.
    """
    return "\n".join(
        [
            "# Written by lxcfleet.",
            f"interface={bridge}",
            "except-interface=lo",
            "bind-dynamic",
            *_answers(domain, gateway, paths),
            f"pid-file={paths.dnsmasq_pid}",
            "",
        ]
    )


def render_stand_in(domain: str, gateway: IPv4Address, paths: Paths) -> str:
    """The configuration of a second dnsmasq, which answers the same at the responder's address meanwhile."""
    address = responder_address(gateway)
    return "\n".join(
        [
            "# Written by lxcfleet.",
            f"listen-address={address}",
            f"port={STAND_IN_PORT}",
            "bind-interfaces",
            *_answers(domain, gateway, paths),
            f"pid-file={paths.stand_in_pid}",
            "",
        ]
    )


def _answers(domain: str, gateway: IPv4Address, paths: Paths) -> list[str]:
    """The lines that say what is answered, and by whom."""
    return [
        "no-hosts",
        f"hostsdir={paths.hosts}",
        f"domain={domain}",
        f"server=/{domain}/{responder_address(gateway)}#{RESPONDER_PORT}",
        "# The SRV records of a group of two hundred fit into one answer.",
        "edns-packet-max=8192",
        f"dns-forward-max={MOST_WAITING}",
        # dnsmasq would not start at all without the directory in which it watches for the host's name servers.
        *([] if resolved.has_servers() else ["no-resolv"]),
        "domain-needed",
        "bogus-priv",
        f"user={USER}",
    ]


def stand_in(paths: Paths) -> Standing:
    """That second dnsmasq as a standing program."""
    argv = [str(PROGRAM), f"--conf-file={paths.stand_in_config}"]
    return Standing("the stand-in for the name server", argv, paths.stand_in_pid)


def server(paths: Paths) -> Standing:
    """dnsmasq as a standing program."""
    return Standing("the name server", [str(PROGRAM), f"--conf-file={paths.dnsmasq_config}"], paths.dnsmasq_pid, user=USER)


def responder(domain: str, gateway: IPv4Address, paths: Paths) -> Standing:
    """The server of SRV records; see lxcfleet.network.responder."""
    package = Path(__file__).resolve().parents[3]
    listen = [str(responder_address(gateway)), str(RESPONDER_PORT)]
    module = ["-P", "-s", "-m", "lxcfleet.network.responder"]
    # The version is an argument, so that a daemon of another version starts its own responder.
    argv = [sys.executable, *module, str(paths.hosts), domain, *listen, str(paths.responder_pid), USER, __version__]
    return Standing("the server of SRV records", argv, paths.responder_pid, {"PYTHONPATH": str(package)}, USER)


def check_port() -> None:
    """Raise Unsupported if a program has port 53 of all addresses. One that has it on some addresses is in nobody's way."""
    for kind, protocol in ((socket.SOCK_DGRAM, "udp"), (socket.SOCK_STREAM, "tcp")):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind is socket.SOCK_STREAM))
            try:
                probe.bind((str(_NOBODYS), PORT))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    continue
                raise Unsupported(
                    "the fleet has no name server", why=f"a program of the host's has port 53/{protocol} of all addresses",
                    hint=f"`ss -Hlnp{protocol[0]} sport = :53` tells which; have it listen on some addresses only, or set "
                    "network.dns: false in lxcfleet.yaml",
                ) from error  # fmt: skip


def check_installed() -> None:
    """Raise Unsupported if there is no dnsmasq."""
    if not PROGRAM.exists():
        raise Unsupported("the fleet has no name server", why=f"{PROGRAM} is missing",
                          hint="apt install dnsmasq-base, or set network.dns: false in lxcfleet.yaml")  # fmt: skip
