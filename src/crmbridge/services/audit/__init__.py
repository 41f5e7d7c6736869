"""Audit: the append-only log of everything that was done, by whom, for which tenant."""

from crmbridge.services.audit.model import AuditEntry, AuditRow
from crmbridge.services.audit.service import AuditLog

__all__ = ["AuditEntry", "AuditLog", "AuditRow"]
