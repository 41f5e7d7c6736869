"""crmbridge: one interface for software that writes into and reads from each customer's own CRM."""

from crmbridge._version import __version__

__all__ = ["__version__"]
