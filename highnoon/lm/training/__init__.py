"""How a language model is trained. `trainer` is the public interface, `loop` runs the training."""
