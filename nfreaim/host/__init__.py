"""The Linux side: packet queue, packet filter, connection tracking, rules, state, processes and reports.

Core decides what happens to a message; these modules carry it out. Each third-party library is imported by
exactly one of them.
"""
