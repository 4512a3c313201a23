"""AppArmor's rules for systemd in a container. Without AppArmor these tests pass in any case; tests/vm has hosts with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .harness import Fleet

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def name(own_fleet: Fleet) -> str:
    """A container with systemd."""
    own_fleet.create(own_fleet.name("s"), command=())
    own_fleet.ok("wait", own_fleet.name("s"), "--for", "healthy")
    return own_fleet.name("s")


@pytest.mark.parametrize("setting", ["DynamicUser=yes", "PrivateNetwork=yes"])
def test_systemd_may_lock_a_socket_for_its_services(own_fleet: Fleet, name: str, setting: str) -> None:
    """Debian's kernels forbid such a lock to every profile that has a rule about the network."""
    unit = f"[Service]\\nType=oneshot\\n{setting}\\nExecStart=/bin/true\\n"
    own_fleet.inside(name, f"printf '{unit}' >/etc/systemd/system/locking.service && systemctl daemon-reload")
    own_fleet.inside(name, "systemctl start locking.service")


def test_the_hosts_own_settings_of_apparmor_stay_as_they_are(own_fleet: Fleet, name: str) -> None:
    assert "/etc/apparmor" not in Path("/proc/self/mountinfo").read_text()
    assert "parser.conf" not in own_fleet.inside(name, "cat /proc/self/mountinfo")
