"""Patches of the host: noticing them, finding old code and shadows, proving the patch, and rollouts."""
