"""Faults as data: what the sandbox does wrong on demand, which calls that concerns, and how often it did.

`model.py` is a fault; `reader.py` reads faults from YAML; `table.py` keeps them and decides; `seam.py` is what app.py
calls; `codes.py`, `delivery.py` and `fates.py` do what it decides; `page.py` and `client.py` are the two ends of the
page over which a table gets into a running sandbox. docs/sandbox-faults.md is the user's reference.
"""
