"""The version, at the bottom of the import order so that every layer can record it."""

__version__ = "0.2.0"
