"""Reads backups: what changed between two of them."""
