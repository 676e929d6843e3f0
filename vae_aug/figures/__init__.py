"""Sheets of images and plots of figures, as PNG files."""
