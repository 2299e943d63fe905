"""Step kinds to test leases with: two leases that are volumes of the cloud, and steps that use them."""
