"""One module for each command, or for a group of them: its arguments and what it does."""
