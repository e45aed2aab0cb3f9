"""Attacks on a router with nfreaim, each a script: `python tests/attacks/NAME.py [CHECKOUT]`, as root.

A script plays one attack and ends with "VULNERABLE: ..." and status 1 or with "HOLDS: ..." and status 0. It
attacks the daemon and the rules of CHECKOUT, in a lab made by that tree's tests.lab; the script and what the
attacks share (this package) come from the tree that the script stands in.
"""
