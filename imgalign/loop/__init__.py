"""The whole alignment loop as one command."""
