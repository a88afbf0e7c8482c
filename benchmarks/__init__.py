"""Workloads that compare lastgood with what else people use, on the machine at hand; see README.md."""
