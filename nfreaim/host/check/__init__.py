"""nfreaim check: looks for everything that is needed."""
