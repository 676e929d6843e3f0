"""Data sets of any format to records."""
