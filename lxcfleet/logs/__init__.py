"""The output of containers, and their events, on the way to the host's log: consoles are followed by a process of the
daemon's own, which sends their lines to journald or syslog. Reading them for `lxcfleet logs` belongs here, too; sockets and
watches belong in host."""
