"""What operations do, in numbers, and who is told of them; of lastgood."""
