"""Keys, credentials and sealed objects; the only package that uses `cryptography`."""
