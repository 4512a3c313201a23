"""The fleet's network: addresses, the bridge and its rules, names, published ports."""
