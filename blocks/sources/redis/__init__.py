"""Redis servers as a source of state."""

from blocks.sources.redis.source import RedisSource

__all__ = ["RedisSource"]
