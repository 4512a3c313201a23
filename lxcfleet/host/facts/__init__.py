"""What the host has and can do."""
