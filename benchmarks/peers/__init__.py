"""Comparisons with other programs: reliability when processes are killed, trials per second, samplers."""
