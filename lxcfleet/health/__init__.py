"""How healthy containers are: the checks and how they are carried out, what follows from their results, and the record of it
for the next daemon. What is done because of it (names, ports, rollouts) is in the rooms that subscribe to its events."""
