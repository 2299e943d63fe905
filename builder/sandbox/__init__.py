"""The embedded cloud: a control plane of moto, a data plane of real files."""
