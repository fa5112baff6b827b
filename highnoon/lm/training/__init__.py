"""How a language model is trained: curriculum, compiled step, schedule, checkpoints, listeners, summary.

`trainer` holds what a person asks for, `run` does it; each other module has one duty of the run.
"""
