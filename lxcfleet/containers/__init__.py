"""Containers and their life: specs on disk, what runs, plans, and their execution. Rooms above (network, health, patch)
are handed in; see outside."""
