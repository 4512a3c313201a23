"""What the daemon's rooms share while it runs: events, operations, background work. It knows no container."""
