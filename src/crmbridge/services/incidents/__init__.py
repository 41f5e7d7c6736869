"""Incidents: what an operator must see, opened once and counted when it repeats."""

from crmbridge.services.incidents.model import Incident, IncidentKind, IncidentState
from crmbridge.services.incidents.service import Incidents

__all__ = ["Incident", "IncidentKind", "IncidentState", "Incidents"]
