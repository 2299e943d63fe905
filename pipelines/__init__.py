"""emi: a YAML recipe becomes exactly one registered machine image."""
