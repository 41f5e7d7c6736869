"""BUDGETS: the provider's rate limits of each connection, shared by all processes."""

from crmbridge.services.connections.budgets.service import Budgets

__all__ = ["Budgets"]
