"""A repository of backups: manifests, history, leases, retention of objects, and checks."""
