"""MAPPING: the tenant's overrides on top of the driver's own field table."""
