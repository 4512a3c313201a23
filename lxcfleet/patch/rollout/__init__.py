"""Restarting many containers in waves, gated by their health."""
