"""The fleet's network: addresses, the bridge's rules, names. Pure; the kernel's side is in host."""
