"""Generic REST: a CRM described by a document that the operator writes."""
