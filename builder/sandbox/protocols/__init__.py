"""How services speak: the wire protocols of AWS, each with its way to answer and to refuse."""
