"""The user's objective: where it is, whether it may run here, and one attempt of it from parameters to Outcome."""
