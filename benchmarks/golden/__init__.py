"""A record of what the package does, by which code can be moved while its behaviour stays."""
