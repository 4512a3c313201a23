"""A host that is not one: what the real daemon needs below it, without root, LXC and network."""
