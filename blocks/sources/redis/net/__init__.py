"""Connections to servers and clusters, and what is said over them."""
