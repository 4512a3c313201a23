"""Merging the host's records of packages and accounts with a container's own, before each start."""
