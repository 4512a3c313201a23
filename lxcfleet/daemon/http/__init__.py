"""The server side of the API, and the metrics for Prometheus."""
