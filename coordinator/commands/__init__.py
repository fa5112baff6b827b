"""The commands, a file for each group of them. A command parses, calls and prints; no decision is made here.

What is slow to import (Optuna, SQLAlchemy, plotly) is imported when a command runs, so that help and shell completion
need not wait for it.
"""
