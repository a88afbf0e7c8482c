"""Plans: which sources, which repository, which keys, which policy."""
