"""The fleet's name server as the daemon keeps it: dnsmasq, and the responder that dnsmasq asks."""

from __future__ import annotations

from ipaddress import IPv4Address

from lxcfleet.host.kernel import tree
from lxcfleet.host.net import dnsmasq
from lxcfleet.host.process.standing import Standing
from lxcfleet.paths import Paths
from lxcfleet.spec.settings import NetworkSettings

DNSMASQ, RESPONDER = "dnsmasq", "responder"


class NameServer:
    """Two programs that go on when the daemon ends. Its methods may block: call them in a thread."""

    def __init__(self, paths: Paths, settings: NetworkSettings, gateway: IPv4Address) -> None:
        """``gateway``: the bridge's address."""
        self._paths = paths
        self._config = dnsmasq.render(settings.bridge, settings.domain, gateway, paths)
        self._server = dnsmasq.server(paths)
        self._responder = dnsmasq.responder(settings.domain, gateway, paths)

    def missing(self) -> list[str]:
        """The titles of those that do not run, with whatever settings."""
        return [each.title for each in (self._responder, self._server) if each.present() is None]

    def start(self) -> None:
        """Have both run with the settings as they are. Raises Unsupported or HostError."""
        dnsmasq.check_installed()
        self._paths.hosts.mkdir(mode=0o755, exist_ok=True)
        _have(self._responder)
        file = self._paths.dnsmasq_config
        if not file.exists() or file.read_text(encoding="utf-8") != self._config:
            self._server.stop()
            tree.write(file, self._config)
        _have(self._server)


def programs(paths: Paths) -> dict[str, int]:
    """The pids of those that run, with whatever settings, by name."""
    files = {DNSMASQ: paths.dnsmasq_pid, RESPONDER: paths.responder_pid}
    found = {name: Standing(name, (), pid_file).present() for name, pid_file in files.items()}
    return {name: pid for name, pid in found.items() if pid is not None}


def stop(paths: Paths) -> None:
    """End both, whatever settings they run with. Raises HostError."""
    for pid_file in (paths.dnsmasq_pid, paths.responder_pid):
        Standing(f"the program of {pid_file.name}", (), pid_file).stop()


def _have(program: Standing) -> None:
    if program.running() is None:
        program.stop()
        program.start()
