"""A fake host: everything that the real daemon needs below it, without root, LXC and network."""
