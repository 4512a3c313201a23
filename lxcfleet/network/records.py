"""Two files about the network: one tells clones where their name server is, one tells the next daemon what is set up."""

from __future__ import annotations

import contextlib
import json
import logging
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from lxcfleet.host.kernel import tree
from lxcfleet.host.net import resolved
from lxcfleet.network.addresses.changes import WHERE
from lxcfleet.paths import Paths
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.reading import ondisk
from lxcfleet.spec.reading.terms import Addresses

_MTU = "mtu"
LEAST_MTU, MOST_MTU = 1280, 65535
"""The least that IPv6 works with, and the most that a bridge takes."""

log = logging.getLogger(__name__)


def announce(paths: Paths, settings: NetworkSettings, gateway: IPv4Address | None) -> None:
    """Write the resolv.conf of clones, which the mask takes up. ``gateway``: the host's address on the bridge.

    Raises OSError.
    """
    if settings.dns and gateway is not None:
        text = f"search {settings.domain}\nnameserver {gateway}\n"
    elif settings.dhcp:
        text = resolved.servers()  # those of the host are in reach on its own network
    else:
        paths.resolv_conf.unlink(missing_ok=True)
        return
    with contextlib.suppress(OSError):
        if ondisk.text(paths.resolv_conf, "ascii", "replace") == text:
            return
    tree.write(paths.resolv_conf, text)


def record(paths: Paths, settings: NetworkSettings, mtu: int = 0) -> None:
    """Note what is set up, for the next daemon, which may have other settings. Raises OSError.

    ``mtu``: of the fleet's own bridge."""
    tree.write(paths.network_record, json.dumps({key: getattr(settings, key) for key in WHERE} | {_MTU: mtu}))


def recorded_mtu(paths: Paths) -> int:
    """The MTU with which an earlier daemon has made the bridge; 0: it is not known."""
    try:
        found = ondisk.record(paths.network_record).get(_MTU, 0)
    except (OSError, ValueError, AttributeError):
        return 0
    return found if isinstance(found, int) and LEAST_MTU <= found <= MOST_MTU else 0


def recorded(paths: Paths, settings: NetworkSettings) -> NetworkSettings:
    """``settings``, but with what an earlier daemon has set up; as they are, if it has set up nothing."""
    try:
        found = ondisk.record(paths.network_record)
        data: dict[str, Any] = {key: str(value) for key, value in found.items() if key != _MTU}
        return replace(settings, **{**data, "addresses": Addresses(data["addresses"])})
    except FileNotFoundError:
        return settings
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("%s can't be read: %s. What an earlier daemon set up of the network is lost", paths.network_record, error)
        return settings
