"""Reads keys of any type, many at a time."""
