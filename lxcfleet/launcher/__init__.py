"""The process that forks a child for each call of liblxc and each change of mounts; its client in the daemon; the work
of its children; and LXC's pre-start hook, which mounts the layers for plain lxc-start."""
