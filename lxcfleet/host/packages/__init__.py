"""What dpkg knows, and whether it is at work."""
