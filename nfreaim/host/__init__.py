"""Everything that touches Linux: the queue, the packet filter, connection tracking, the rules.

What happens to a message is core's decision. Each third-party library is imported in exactly one of these
modules.
"""
