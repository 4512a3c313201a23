"""The process that forks a child for each thing that liblxc or the mount table is asked to do; its client in the daemon,
what its children do, and LXC's pre-start hook, which does the same for plain lxc-start."""
