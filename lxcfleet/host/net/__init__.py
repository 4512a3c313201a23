"""Interfaces, packet filter, name server, DHCP clients."""
