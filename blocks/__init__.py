"""The nouns of lastgood: what a backup is made of."""
