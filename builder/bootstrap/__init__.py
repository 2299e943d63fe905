"""A bootable disk from a distribution's packages, without root mounts, loop devices or an appliance."""
