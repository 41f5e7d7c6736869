"""athenahealth: athenaOne, the records of medical practices (PHI-gated)."""
