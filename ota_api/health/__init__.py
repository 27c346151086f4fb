"""Whether the server lives and can do its work."""
