"""The requests of users: each is checked against all of the fleet and the host before anything changes, and the reconciler
does it. Requests are for new containers, for other specs, and for actions on existing ones."""
