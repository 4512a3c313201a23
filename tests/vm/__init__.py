"""Throwaway Debian hosts, booted in qemu, on which the product is tried as an operator meets it.

`image.py` builds a disk image per Debian suite and keeps it in the user's cache; `guest.py` boots one.
"""
