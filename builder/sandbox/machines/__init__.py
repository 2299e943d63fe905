"""What runs behind the sandbox's instances: machines with bytes, a console and an address. They know no call of EC2."""
