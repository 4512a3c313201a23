"""lxcfleetd: the wiring of all rooms and of the subscribers to their events, the daemon's start and end, its sockets and the
server of the API. Decisions and work belong in the rooms below."""
