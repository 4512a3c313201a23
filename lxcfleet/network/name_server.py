"""The fleet's name server as the daemon keeps it: dnsmasq, and the responder that dnsmasq asks."""

from __future__ import annotations

import time
from ipaddress import IPv4Address

from lxcfleet.errors import HostError
from lxcfleet.host.kernel import tree
from lxcfleet.host.net import dnsmasq
from lxcfleet.host.net.stand_in import StandIn
from lxcfleet.host.process import proc
from lxcfleet.host.process.standing import Standing
from lxcfleet.network.rules.rules import Behind
from lxcfleet.paths import Paths
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading import ondisk

DNSMASQ, RESPONDER = "dnsmasq", "responder"
TCP_SECONDS = 2.0
"""The longest time for which clients over TCP are waited for before dnsmasq is ended."""


class NameServer:
    """Two programs that go on when the daemon ends. Its methods may block: call them in a thread."""

    def __init__(self, paths: Paths, settings: NetworkSettings, gateway: IPv4Address) -> None:
        """``gateway``: the bridge's address."""
        self._paths = paths
        self._config = dnsmasq.render(settings.bridge, settings.domain, gateway, paths)
        self._gateway = gateway
        self._server = dnsmasq.server(paths)
        self._stand_in_config = dnsmasq.render_stand_in(settings.domain, gateway, paths)
        self._stand_in = dnsmasq.stand_in(paths)
        self._responder = dnsmasq.responder(settings.domain, gateway, paths)

    def missing(self) -> list[str]:
        """The titles of those that do not run, with whatever settings."""
        return [each.title for each in (self._responder, self._server) if each.present() is None]

    @property
    def current(self) -> bool:
        """Whether the configuration is what it should be at this moment."""
        try:
            return ondisk.text(self._paths.dnsmasq_config, errors="replace") == self._config
        except FileNotFoundError:
            return False

    def start(self) -> None:
        """Have both run with the settings as they are. Raises Unsupported or HostError."""
        dnsmasq.check_installed()
        self._paths.hosts.mkdir(mode=0o755, exist_ok=True)
        _have(self._responder)
        if not self.current:
            self._server.stop()
            tree.write(self._paths.dnsmasq_config, self._config)
        _have(self._server)

    def renew_responder(self) -> None:
        """Have the responder run as it is on disk now. No question is lost, as they wait in its sockets. Raises HostError."""
        if not self._responder.run_anew():
            self._responder.stop()
            self._responder.start()

    def tidy(self) -> None:
        """End a stand-in that an earlier daemon left. Raises HostError."""
        self._stand_in.stop()

    def stand_in(self) -> StandIn:
        """Have another dnsmasq answer what comes over UDP, until the caller closes the stand-in. Raises HostError."""
        self._stand_in.stop()
        tree.write(self._paths.stand_in_config, self._stand_in_config)
        self._stand_in.start()
        try:
            return StandIn(str(self._gateway), (str(dnsmasq.responder_address(self._gateway)), dnsmasq.STAND_IN_PORT))
        except HostError:
            self._stand_in.stop()
            raise

    def exchange(self) -> None:
        """Start dnsmasq as it is on disk now in the place of the one that runs. Raises HostError.

        dnsmasq has a process for each client over TCP, and these are waited for.
        """
        pid = self._server.present()
        deadline = time.monotonic() + TCP_SECONDS
        while pid is not None and proc.has_children(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._server.stop()
        self.start()

    def relieve(self, stand_in: StandIn) -> None:
        """The stand-in has answered what it was asked, and ends. Raises HostError."""
        stand_in.close()
        self._stand_in.stop()
        self._paths.stand_in_config.unlink(missing_ok=True)


def programs(paths: Paths) -> dict[str, int]:
    """The pids of those that run, with whatever settings, by name."""
    files = {DNSMASQ: paths.dnsmasq_pid, RESPONDER: paths.responder_pid}
    found = {name: Standing(name, (), pid_file).present() for name, pid_file in files.items()}
    return {name: pid for name, pid in found.items() if pid is not None}


def behind(gateway: IPv4Address) -> Behind | None:
    """The programs that the fleet's name server asks; None: the host has no user for that server. ``gateway``: the bridge's
    address."""
    user = dnsmasq.user()
    if user is None:
        return None
    return Behind(dnsmasq.responder_address(gateway), (dnsmasq.RESPONDER_PORT, dnsmasq.STAND_IN_PORT), user)


def stop(paths: Paths) -> None:
    """End both, whatever settings they run with. Raises HostError."""
    for pid_file in (paths.dnsmasq_pid, paths.responder_pid, paths.stand_in_pid):
        Standing(f"the program of {pid_file.name}", (), pid_file).stop()


def _have(program: Standing) -> None:
    if program.running() is None:
        program.stop()
        program.start()
