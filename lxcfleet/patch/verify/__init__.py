"""The proof that a patch is everywhere."""
