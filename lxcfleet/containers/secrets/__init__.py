"""The secrets of containers: who has which, whether their values are there, and what follows in containers when one changes.
The values themselves are in data.secrets, and what a spec says of them in spec.container.secrets."""
