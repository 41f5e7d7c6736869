"""Tekmetric: shop management of auto repair shops."""
