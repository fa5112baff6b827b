"""Samplers and pruners over Optuna: built from a study's spec, used before a trial exists. Writes nothing."""
