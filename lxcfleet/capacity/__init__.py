"""The needs of containers, the means of the host, and each container's ids. containers.room takes both for a container."""
