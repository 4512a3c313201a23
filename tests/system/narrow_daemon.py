"""A daemon for which the kernel keeps few messages about the packet filter: what comes beyond that is lost."""

from __future__ import annotations

from lxcfleet.daemon import serving
from lxcfleet.daemon.main import main
from lxcfleet.host.net import nft_watch

if __name__ == "__main__":
    serving.OBSERVE_SECONDS = 1.0
    nft_watch._BUFFER = 4096
    main()
