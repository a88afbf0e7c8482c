"""Who is told numbers: one module for each kind, which alone imports its client; of lastgood."""
