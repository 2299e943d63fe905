"""A guest's network configuration, in whatever format its system reads."""
