"""The floor that the SDK, the coordinator and the workers stand on: nouns, rules for nouns, one adapter per outside system.

Imports none of the rooms above it. The order of its own layers is checked by import-linter.
"""
