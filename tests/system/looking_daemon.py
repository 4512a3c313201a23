"""A daemon that looks every other second whether containers can look up names, and not once a minute."""

from __future__ import annotations

from lxcfleet.daemon.main import main
from lxcfleet.network import lookups

if __name__ == "__main__":
    lookups.LOOK_SECONDS, lookups.PAUSE_SECONDS = 2.0, 1.0
    main()
