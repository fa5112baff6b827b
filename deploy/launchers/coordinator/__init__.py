"""Makes `python -m coordinator` work where HighNoon is installed; everything else is in `highnoon.coordinator`."""
