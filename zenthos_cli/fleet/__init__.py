"""The fleet: simulated devices, and recorded measurements sent as if by devices."""
