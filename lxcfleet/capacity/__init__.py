"""What containers need, what the host has, and who has which ids. What is taken for one container is in containers.room."""
