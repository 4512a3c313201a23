"""What containers need without anybody asking: a start after an end, by their restart policy, and after a boot of the
host."""
