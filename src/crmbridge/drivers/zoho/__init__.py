"""Zoho CRM: leads, contacts, deals, meetings, cases, notes and calls of one organisation in one data centre."""
