"""The packet filter's rules for the fleet's bridges, and who is behind each published port. Pure."""
