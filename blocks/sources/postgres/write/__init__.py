"""Restores into a database, as a whole or not at all."""
