"""Training objectives that use the tree, and the rival that does without."""
