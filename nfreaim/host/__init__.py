"""Everything that touches Linux: the queue, the packet filter, conntrack, the rules.

Nothing in here may decide what happens to a message; that is the core's work. Each third-party library is
imported in exactly one of these modules.
"""
