"""A test run that test_broken_off.py starts and then breaks off."""

from __future__ import annotations

import os
import time
from pathlib import Path

from .harness import Fleet


def test_a_container_on_a_bridge(fleet: Fleet) -> None:
    # An address that no other fleet on this machine is likely to take at the same moment.
    fleet.stop_daemon()
    number = int(fleet.tag, 16)
    fleet.settings(f"network: {{bridge: {fleet.bridge}, ipv4: 10.{64 + number % 100}.{number // 100 % 250}.0/24}}\n")
    fleet.start_daemon()
    fleet.create(fleet.name("a"), options=["--network", "bridge"])
    fleet.spawn("exec", fleet.name("a"), "--", "sleep", "infinity")
    fleet.ok("freeze", fleet.name("a"))
    Path(os.environ["TELL_THE_TAG"]).write_text(fleet.tag + "\n")
    time.sleep(300)
