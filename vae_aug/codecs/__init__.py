"""Image files to pixels and back: PNG, JPEG, TIFF, and what their headers say."""
