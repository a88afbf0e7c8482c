"""Reads a database: one snapshot, part by part."""
