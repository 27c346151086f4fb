"""What a device has reported, from the hot and the analytical plane as one answer."""
