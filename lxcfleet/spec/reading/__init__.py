"""How values are read, strictly and with all complaints at once: YAML and JSON, types of values, and rows, which declare a
key. Knows no key of its own."""
