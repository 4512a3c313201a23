"""Containers and their life. Here is what the daemon knows of each: its spec on disk, what is wanted of it, its runs, their
events, and what LXC is told. The rooms within change containers, or look at them: secrets, ends and measuring use this one
alone; above them are reconciling, then order and copies, then requests, then supervision. Rooms above all of these (network,
health, patch) are handed in; see outside."""
