"""liblxc and the programs around it: attach, monitors, the booter, AppArmor.

Only the launcher's children and the booter may call liblxc itself: it holds Python's global lock.
"""

from pathlib import Path

BOOTER = Path(__file__).with_name("booter.py")
"""The program whose children start containers."""
