"""The embedded stack: every server Zenthos needs, on loopback, without root and without Docker."""
