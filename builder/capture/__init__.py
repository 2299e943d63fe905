"""The root of a machine that runs, as an image of a filesystem: read as files, cleaned as values, written anew.

Nothing is mounted, opened or executed here of what comes from that machine, and nothing there is changed.
"""
