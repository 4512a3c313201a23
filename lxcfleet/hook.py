#!/usr/bin/python3
"""LXC's pre-start hook: mounts a container's layers when plain lxc-start or lxc@.service starts it.

liblxc runs this in the monitor's own mount namespace (lxc.monitor.unshare = 1), so what is mounted here is what
the container gets, and it goes when the container stops. lxcfleet's own starts mount the layers before, and
leave this out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from lxcfleet.base import layers, mask_mount  # noqa: E402
from lxcfleet.errors import Broken, FleetError  # noqa: E402
from lxcfleet.fleet import store  # noqa: E402
from lxcfleet.host import apparmor, kernel  # noqa: E402
from lxcfleet.names import Paths  # noqa: E402


def main() -> None:
    """Mount the layers of the container that LXC_NAME names, or fail so that it does not start.

    Its arguments are the fleet's directories below /run and /etc.
    """
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    name = os.environ.get("LXC_NAME", "")
    run, etc = (Path(argument) for argument in sys.argv[1:3])
    config = Path(os.environ.get("LXC_CONFIG_FILE", str(Paths().container(name).config)))
    paths = Paths(config.parent.parent, run, etc)
    try:
        spec = store.load(paths, name)
        if spec is None or isinstance(spec, Broken):
            raise spec or Broken(f"{name} is no container of lxcfleet's", why=f"no spec beside {config}")
        apparmor.leave_profile()
        kernel.make_slave(Path("/"))
        mask_mount.refresh(paths, force=False)
        layers.mount(paths, name, spec.first_id)
    except (FleetError, OSError) as error:
        print(f"lxcfleet: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
