"""``crmbridge import``: a file read row by row, cleaned, sent in batches, and resumed after anything."""
