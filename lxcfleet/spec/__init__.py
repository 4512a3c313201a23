"""Everything that an operator can ask for: specs, profiles, settings, and how they are read. Values only: no I/O except
for the one settings file, and nothing about running containers."""
