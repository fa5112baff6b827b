"""The floor under the SDK, the coordinator and the workers: nouns, their rules, one adapter per outside system.

Imports none of the rooms above it. The order of its own layers is checked by import-linter.
"""
