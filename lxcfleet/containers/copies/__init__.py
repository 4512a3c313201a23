"""Copies of what containers have written: what one costs, how a container is held still for it, and snapshots on disk. What
may be copied when is up to daemon.uses.snapshots, daemon.uses.archives and patch.delta_copies."""
