"""The machines of instances: what EC2's records say is done to them, and what they do is written down."""
