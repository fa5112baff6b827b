"""The trial process: started, connected by a pipe, its output kept, its checkpoints stored."""
