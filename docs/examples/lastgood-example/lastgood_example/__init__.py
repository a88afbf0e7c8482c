"""An example of a package that adds a source, a tier and a collector to lastgood."""
