"""The HSMN language model: its layers, its size, its memory. Importing this package imports no TensorFlow."""
