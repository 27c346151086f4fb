"""The audit log: who changed what, and when. It is only ever added to."""
