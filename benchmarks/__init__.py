"""Measurements against floors and peers. Each module runs alone: ``python -m benchmarks.NAME --help``."""
