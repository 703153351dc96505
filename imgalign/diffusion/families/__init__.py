"""Families of text-to-image models: what all share (backbone), what each adds, and their table."""
