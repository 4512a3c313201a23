"""Processes: what runs, with which files, in which cgroup; running programs of the host's."""
