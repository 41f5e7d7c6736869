"""Tenants: the customers of whoever runs crmbridge, and the API keys of agents and operators."""

from crmbridge.services.tenants.model import ApiKey, KeyRefused, Principal, Tenant
from crmbridge.services.tenants.service import Tenants

__all__ = ["ApiKey", "KeyRefused", "Principal", "Tenant", "Tenants"]
