"""OPENING: a connection with all that a call of its tenant needs, read by one statement and kept for two seconds."""

from crmbridge.services.connections.opening.service import FRESH_SECONDS, Opened, Openings

__all__ = ["FRESH_SECONDS", "Opened", "Openings"]
