"""Mindbody: salons, spas and studios, through its public API v6."""
