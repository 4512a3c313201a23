"""What clones are built on: the layers and their mounts, the mask, and the merge of the host's records with a container's.
Nothing here knows the daemon."""
