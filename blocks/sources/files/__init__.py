"""Folders of files as a source of state."""

from blocks.sources.files.source import FilesSource

__all__ = ["FilesSource"]
