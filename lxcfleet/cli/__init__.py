"""The command line: a thin client. It knows the daemon by its API alone."""
