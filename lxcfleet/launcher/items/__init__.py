"""The arguments and answers of the launcher's operations, by subject; all are sent as JSON."""
