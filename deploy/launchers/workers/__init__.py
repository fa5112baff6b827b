"""Makes `python -m workers` work where HighNoon is installed; everything else is in `highnoon.workers`."""
