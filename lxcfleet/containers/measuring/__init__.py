"""Containers as numbers: what they use, what they take on the disk, and what monitoring reads of the fleet. It changes
nothing."""
