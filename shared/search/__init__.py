"""Samplers and pruners over Optuna: built from a study's spec, asked before a trial exists. Writes nothing."""
