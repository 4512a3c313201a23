"""The calls, the records that travel, and the client. The handlers that answer the calls are in daemon.http."""
