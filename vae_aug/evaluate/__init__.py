"""Measures of what the other stages did."""
