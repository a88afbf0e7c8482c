"""Changes from a logical replication slot."""
