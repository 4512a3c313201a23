"""lxcfleetd: what puts the rooms together, and what the API asks of them."""
