"""Measurements, side by side with peers. Each script prints its figures, and writes them into `benchmarks/results/`."""
