"""The words and names of the language, for its reader and its JSON Schema."""

KEYS = ("name", "description", "vars", "steps", "outputs")  # of a recipe
BESIDE = ("id", "from")  # of a step's item, beside its kind
DECLARATION = ("type", "default", "description")  # of a variable

NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"  # of a recipe
ID = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"  # of a step
VARIABLE = "[A-Za-z][A-Za-z0-9_-]{0,63}"
