"""Takes packets from the router's interfaces for ``nfreaim record``."""
