"""Intake: what is said of a write before its transaction, and the transaction that takes it in."""
