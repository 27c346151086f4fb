"""From bad data to what was trained on it, and from a prediction back to its readings."""
