"""Figures that the documentation claims, each measured by a command. Nothing here is a test."""
