"""Files of deltas that hide the host's."""
