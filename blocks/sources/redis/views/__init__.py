"""Views of a server: as it is, at one moment, or from its replication backlog."""
