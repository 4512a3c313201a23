"""What the daemon's rooms share while it runs: the bus of events and their log, operations, background tasks.
It knows no container."""
