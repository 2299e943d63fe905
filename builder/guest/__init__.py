"""Guests: facts read from a disk and edits made to it, in one appliance launch."""
