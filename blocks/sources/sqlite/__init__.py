"""SQLite databases as a source of state."""

from blocks.sources.sqlite.source import SQLiteSource

__all__ = ["SQLiteSource"]
