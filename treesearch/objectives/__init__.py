"""Training objectives that use the tree."""
