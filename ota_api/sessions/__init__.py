"""Sessions: a user logs in, keeps the session alive, logs out."""
