"""Everything that the user sees of a verb's work and its outcome: tables, progress, terminals."""
