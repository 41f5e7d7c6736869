"""The generated part of docs/: one module per sort of page, all drawn from the code."""
