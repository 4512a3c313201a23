"""The files that operators write, as they are read: settings, profiles, the fleet file, rules of the mask; and their
schemas."""
