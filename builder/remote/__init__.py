"""Other machines over SSH: commands, block devices, and images written to them. Knows no cloud and no pipeline.

The only importer of paramiko; docs/design/remote.md has the reasons.
"""
