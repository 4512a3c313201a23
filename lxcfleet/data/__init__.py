"""Data that outlives containers: volumes on disk, and how they are mounted in a container; snapshots of deltas, their
restoration, and what backup programs see of them. It knows specs and the kernel, and no daemon: the launcher's children and
LXC's hook use it, too. The calls about volumes are carried out in daemon.uses.volumes, those about snapshots in
daemon.uses.snapshots."""
