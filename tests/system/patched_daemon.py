"""A daemon whose dnsmasq is another program, so that a test can replace that: DNSMASQ has its path."""

from __future__ import annotations

import os
from pathlib import Path

from lxcfleet.daemon.main import main
from lxcfleet.host.net import dnsmasq

if __name__ == "__main__":
    dnsmasq.PROGRAM = Path(os.environ["DNSMASQ"])
    main()
