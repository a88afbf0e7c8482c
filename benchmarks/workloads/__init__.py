"""One module per workload; each has `run(bench)`, which returns what it found."""
