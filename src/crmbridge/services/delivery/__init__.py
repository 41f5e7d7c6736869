"""Delivery: accepted writes reach the CRM with exactly one effect, or are parked where an operator sees them."""
