"""Restores: places, targets, previews, the backup before a restore, and undo."""
