"""Captures before and after nfreaim, and what makes them; see README.md."""
