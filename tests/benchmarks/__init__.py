"""Benchmarks of the application, with two baselines measured in the same run: `make bench`."""
