"""Recognise body-focused repetitive behaviours from wrist-sensor recordings."""

__version__ = "0.1.0"
