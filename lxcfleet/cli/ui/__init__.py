"""What the user sees while and after something is done: tables, progress, terminals."""
