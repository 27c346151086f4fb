"""From a quantised model to a signed release."""
