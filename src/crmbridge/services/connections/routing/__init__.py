"""ROUTING: which connections of a tenant an object goes to, and which of them are paused."""

from crmbridge.services.connections.routing.service import Pause, Routing
from crmbridge.services.connections.routing.table import Role, Route, RouteChange

__all__ = ["Pause", "Role", "Route", "RouteChange", "Routing"]
