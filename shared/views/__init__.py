"""Formats that the command line and the dashboard share. Pure."""
