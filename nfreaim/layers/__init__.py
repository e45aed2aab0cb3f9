"""The wire formats, each declared once.

May import scapy.packet, scapy.fields and the standard library; may not import scapy.all or scapy.layers
(they take seconds and open sockets), nor anything of this package outside layers.
"""
