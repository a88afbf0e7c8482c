"""Restores into a server, a cluster or an RDB file."""
