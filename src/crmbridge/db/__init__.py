"""The database room: embedded PostgreSQL, roles, migrations, pools and the seam to the job engine."""
