"""A daemon on a host that has systemd and is due for a reboot, as far as the daemon can see.

SYSTEMCTL in its environment names the program that it calls instead of systemctl. DUE names a file: a reboot is due while it
exists.
"""

from __future__ import annotations

import os
from pathlib import Path

from lxcfleet.daemon.main import main
from lxcfleet.host.packages import reboot
from lxcfleet.host.process import power
from lxcfleet.patch import rebooter

if __name__ == "__main__":
    power.SYSTEMCTL = os.environ["SYSTEMCTL"]
    power.obstacle = lambda: ""
    due = Path(os.environ["DUE"])
    reboot.due = lambda *_: ["linux-image-test"] if due.exists() else []
    rebooter.LOOK_SECONDS = 0.2
    main()
