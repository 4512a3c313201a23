"""A daemon that looks each second, and not every five, whether the fleet's network is as it should be."""

from __future__ import annotations

from lxcfleet.daemon import serving
from lxcfleet.daemon.main import main

if __name__ == "__main__":
    serving.OBSERVE_SECONDS = 1.0
    main()
