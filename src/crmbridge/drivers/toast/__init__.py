"""Toast: guests of a restaurant."""
