"""Features, data set, training, TFLite conversion and the model registry."""
