"""The code of an attempt: whether it may run here, and bundles of it."""
