"""From features to a quantised model."""
