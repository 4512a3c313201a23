"""Which container starts after which: dependencies, waits for what is lacking, and turns where many start or end at once."""
