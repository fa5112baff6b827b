"""Random faults against a real cluster, and what must hold afterwards."""
