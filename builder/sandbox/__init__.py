"""The embedded cloud: one loopback port that behaves like EC2 and its EBS direct APIs, kept in one directory.

lifecycle.py starts, finds and stops it; docs/design/sandbox.md says what it promises and where each part lives.
"""
