"""Salesforce (Sales and Service Cloud, core REST): driver, default field maps, emulator, notes."""
