"""Gaussian mixtures by exact EM for data larger than memory."""

__version__ = "0.1.0"
