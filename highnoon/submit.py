"""Submits."""
