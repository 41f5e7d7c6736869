"""DUTIES: each room owns its tables (model, store, service). ``Services`` is the set that entrypoints are handed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crmbridge.db.jobs import Jobs
    from crmbridge.db.pool import Database
    from crmbridge.services.audit.service import AuditLog
    from crmbridge.services.connections.service import Connections
    from crmbridge.services.delivery.service import Delivery
    from crmbridge.services.incidents.service import Incidents
    from crmbridge.services.mapping.service import Mapping
    from crmbridge.services.oauth.service import OAuth
    from crmbridge.services.operators.service import Operators
    from crmbridge.services.tenants.service import Tenants
    from crmbridge.services.vault.service import Vault
    from crmbridge.services.watch.service import Watch

__all__ = ["Services"]


class Services:
    """Every service of one process, built once by ``app``.

    A plain class: the web framework looks into the annotations of dataclasses at run time.
    """

    def __init__(
        self,
        *,
        db: Database,
        jobs: Jobs,
        audit: AuditLog,
        incidents: Incidents,
        operators: Operators,
        tenants: Tenants,
        vault: Vault,
        oauth: OAuth,
        mapping: Mapping,
        connections: Connections,
        delivery: Delivery,
        watch: Watch,
    ) -> None:
        self.db = db
        self.jobs = jobs
        self.audit = audit
        self.incidents = incidents
        self.operators = operators
        self.tenants = tenants
        self.vault = vault
        self.oauth = oauth
        self.mapping = mapping
        self.connections = connections
        self.delivery = delivery
        self.watch = watch
