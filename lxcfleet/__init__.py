"""lxcfleet: LXC containers cloned over OverlayFS from the host's own root."""

__version__ = "0.1.0"
