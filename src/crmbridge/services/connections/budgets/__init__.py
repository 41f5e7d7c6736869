"""BUDGETS: the provider's rate limits of each connection, shared by all processes."""

from crmbridge.services.connections.budgets.service import LONGEST_SECONDS, Budgets

__all__ = ["LONGEST_SECONDS", "Budgets"]
