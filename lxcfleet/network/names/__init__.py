"""The names that the fleet's containers have: in files of hosts, and in the answers of a name server. Pure."""
