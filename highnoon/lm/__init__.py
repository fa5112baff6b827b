"""The language model of the guide: models, data, tokenizer and training. Importing it imports no TensorFlow."""
