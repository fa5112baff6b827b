"""Handle."""
