"""The step kinds: `steps/NAME.py` is the word in the YAML; nothing registers on import."""
