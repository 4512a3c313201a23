"""Things that the operator has to provide for a bridge of the host's: the bridge and a DHCP client. Our own needs none."""

from __future__ import annotations

from collections.abc import Callable

from lxcfleet.capacity.needs import Finding
from lxcfleet.errors import FleetError
from lxcfleet.host.net import bridge_port, dhcp
from lxcfleet.spec.settings import NetworkSettings


def _checks(settings: NetworkSettings) -> list[Callable[[], None]]:
    return [dhcp.check_installed, lambda: bridge_port.check_bridge(settings.bridge)] if settings.dhcp else []


def check(settings: NetworkSettings) -> None:
    """Raise Unsupported if the host lacks what the operator has to see to."""
    for each in _checks(settings):
        each()


def findings(settings: NetworkSettings) -> list[Finding]:
    """The same for ``doctor``; nothing about a bridge of our own."""
    found = []
    for each in _checks(settings):
        try:
            each()
        except FleetError as error:
            message = f"{error.message}: {error.why}" if error.why else error.message
            found.append(Finding("network", "fail", message, hint=error.hint or "", feature=True))
    if settings.dhcp and not found:
        found.append(Finding("network", "ok", f"containers can use {settings.bridge}", feature=True))
    return found
