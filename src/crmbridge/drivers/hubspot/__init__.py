"""HubSpot: contacts, leads, deals, tickets, meetings, notes, calls."""
