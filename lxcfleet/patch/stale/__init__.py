"""Which processes run old code."""
