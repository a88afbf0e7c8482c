"""How backups are made and read: the backup in progress, its base and chain, and what runs the stages."""
