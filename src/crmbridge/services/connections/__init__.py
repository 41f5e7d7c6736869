"""CONNECTIONS: one CRM of one tenant, and the way of every call through the house."""
