"""Throwaway Debian hosts, booted in qemu, on which lxcfleet is tested as an operator uses it.

`image.py` builds a disk image per Debian suite and keeps it in the user's cache; `guest.py` boots one.
"""
