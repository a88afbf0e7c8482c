"""Rows as Arrow tables: canonical and normal form, keys, digests, indexes, changes and merges, Parquet; no I/O."""
