"""Training: feed, corruption, objective, curves, holdout and the search for settings."""
