"""Flagsmith, as far as its Edge Proxy asks it."""
