"""How the fleet acts by itself: rollouts and their tests, windows of time, CVEs. Values only."""
