"""How runs of containers end, and what keeps them from ending: what liblxc's monitor says, what the kernel kills for want of
memory, commands that end at once, and those who could end a monitor. What follows from an end is up to supervision."""
