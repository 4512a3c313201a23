"""The parts that all rooms of the daemon use while it runs: the bus of events and the log of events, the group of background
tasks, their pace, operations. They know no container; events that name one are defined in the room that publishes them."""
