"""The tests' own MSN codec: commands, invitations, P2P headers, SLP texts and MSNFTP, to build and to read.

Written from the protocol's documents and the sources that `tests/golden/msn.json` names; it imports nothing
of nfreaim, because it judges it. tests/unit/test_msn_codec.py holds it to the golden packets byte by byte.
"""
