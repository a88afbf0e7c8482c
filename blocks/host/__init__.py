"""This machine and its processes: places and their passwords, children, and what killed ones left."""
