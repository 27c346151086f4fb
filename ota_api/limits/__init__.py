"""How often somebody may ask, counted in memory or by several servers together in Redis."""
