"""What the two sides of the API owe each other, tested with a fake daemon and with the real one."""
