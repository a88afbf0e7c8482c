"""Checks of a database into which a backup was restored, and what its definitions make."""
