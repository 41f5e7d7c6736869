"""OpenTable: registered, not built."""
