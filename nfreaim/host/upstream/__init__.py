"""Mappings of the router in front: who is asked for them and how, and how many are kept in reserve."""
