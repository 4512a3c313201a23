"""The wishes for one container: the types of its keys, the table of fields, and the spec that comes of them."""
