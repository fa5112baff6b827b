"""The widths that no field of a configuration names; layers and formulas read them from here."""

from __future__ import annotations

FEEDFORWARD_FACTOR = 4
"""An expert's inner width over the embedding's."""

WAVELET_LEVELS = 3
WAVELET_TAPS = 5
"""At dilation 1, 2, 4: each token sees 28 tokens before it."""

SCAN_CHUNK = 32
"""Tokens that the scan takes at once. Measured on CPU against 16, 64 and 128: `docs/model.md`."""
