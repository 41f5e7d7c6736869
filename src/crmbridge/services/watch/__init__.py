"""How this process stands: gauges for the metrics, and whether it can do its work."""

from crmbridge.services.watch.readiness import Standing
from crmbridge.services.watch.service import Watch

__all__ = ["Standing", "Watch"]
