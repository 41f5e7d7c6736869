"""ROUTING: which connections of a tenant an object goes to, and which of them are paused."""

from crmbridge.services.connections.routing.service import Routing
from crmbridge.services.connections.routing.table import Role, Route

__all__ = ["Role", "Route", "Routing"]
