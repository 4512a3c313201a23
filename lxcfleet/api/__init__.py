"""The calls, the records that travel, and the client. What answers the calls is in daemon.http."""
