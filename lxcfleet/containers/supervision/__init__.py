"""The starts of containers without anybody asking: after an end, by their restart policy, and after a boot of the host."""
