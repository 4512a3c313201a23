"""The API's server side, and what Prometheus reads."""
