"""The only door to the kernel and to programs. Thin: it decides nothing, and raises errors with the path and the errno."""
