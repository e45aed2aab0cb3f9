"""The wire formats, each declared once.

Modules here may import scapy.packet, scapy.fields, each other and the standard library. They may not import
scapy.all or scapy.layers, which take seconds and open sockets, nor modules of this package outside layers.
"""
