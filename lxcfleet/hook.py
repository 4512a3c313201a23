#!/usr/bin/python3
"""Where containers' configurations find LXC's pre-start hook. Its work is in launcher.hook.

The path of this file stands in the configuration of each container, also of those that an earlier version made:
so it stays where it is.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from lxcfleet.launcher.hook import main  # noqa: E402

if __name__ == "__main__":
    main()
