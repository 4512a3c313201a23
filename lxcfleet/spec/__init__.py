"""What can be asked for: specs, profiles, settings, and how they are read. Values only: no I/O but for the one settings
file, and nothing of what runs."""
