"""What people see of runs: artifacts and numbers."""
