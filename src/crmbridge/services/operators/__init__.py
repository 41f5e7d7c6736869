"""Operators: the people who sign in to the console, their roles, passwords and sessions."""

from crmbridge.services.operators.model import Operator, Role, Session, SignInRefused
from crmbridge.services.operators.oidc import Oidc
from crmbridge.services.operators.service import Operators

__all__ = ["Oidc", "Operator", "Operators", "Role", "Session", "SignInRefused"]
