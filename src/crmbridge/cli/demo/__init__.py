"""``crmbridge demo``: emulators, a server of its own, and an import into every driver."""
