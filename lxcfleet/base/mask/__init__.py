"""The mask: rules, what the sweep finds, and the image that hides it."""
