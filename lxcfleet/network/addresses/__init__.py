"""Which addresses the fleet has, which are free, and which operators choose. Pure."""
