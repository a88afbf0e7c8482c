"""What a database is made of: tables, types, definitions, privileges."""
