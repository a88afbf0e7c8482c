"""Python objects that hand out state by key, as a source of state."""

from blocks.sources.mapping.source import MappingSource

__all__ = ["MappingSource"]
