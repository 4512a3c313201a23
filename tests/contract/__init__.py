"""The contract between the client and the daemon, tested with the real daemon over a fake launcher, and over real LXC."""
