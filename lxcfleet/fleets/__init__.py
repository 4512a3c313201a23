"""Fleets as files: what a file would change, what was applied last, and the carrying out of it by the rooms below. How a
file is read is in ``spec``; what containers are is in ``containers``."""
