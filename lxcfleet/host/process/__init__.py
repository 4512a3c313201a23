"""Processes: their files and cgroups; and running programs of the host."""
