"""Releases of apps on disk: sealed once, looked at before they are mounted, removed; and how containers mount them."""
