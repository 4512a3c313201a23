"""The command line: a thin client that talks to the daemon only through the API."""
