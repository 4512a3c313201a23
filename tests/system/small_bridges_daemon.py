"""A daemon whose bridges have room for four addresses each, and not for a thousand."""

from __future__ import annotations

from lxcfleet.daemon.main import main
from lxcfleet.spec.container import addresses

if __name__ == "__main__":
    addresses.PER_BRIDGE = 4
    main()
