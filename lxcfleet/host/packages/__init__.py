"""dpkg's records, and whether dpkg is at work."""
