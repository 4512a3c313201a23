"""The features and the free resources of the host."""
