"""Proves that backups can be restored and that stored objects are whole."""
