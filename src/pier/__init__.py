"""Pier: a container engine in Python. Nothing is imported here, so that each room loads alone."""

__version__ = "0.1.0"
