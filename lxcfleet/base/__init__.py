"""The layers that clones are built on, their mounts, the mask, and the merge of the host's records with a container's.
Nothing here knows the daemon."""
