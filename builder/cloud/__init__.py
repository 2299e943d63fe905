"""Clouds: what we ask of them (api), and how each answers."""
