"""Odoo: JSON-2 on servers from 19, JSON-RPC before."""
