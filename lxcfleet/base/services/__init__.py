"""The host's services that containers run: the units by name with all that belongs to them, and the layer that has them."""
