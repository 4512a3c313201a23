"""What containers need, what the host has, and which container has which ids. containers.room takes both for a container."""
