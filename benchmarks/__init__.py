"""Measured claims, side by side with peers. Each script prints its table, and keeps it in `benchmarks/results/`."""
