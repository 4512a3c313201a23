"""Exit statuses of verbs beside 0, for done; docs/operations.md tells users of them. Errors have their own (errors)."""

FAILED = 1
"""It failed, or nothing was done."""
SOME_FAILED = 3
"""Some of several failed; the rest was done."""
FOUND = 4
"""A check found something."""
