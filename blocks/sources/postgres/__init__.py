"""PostgreSQL databases as a source of state."""

from blocks.sources.postgres.source import PostgresSource

__all__ = ["PostgresSource"]
