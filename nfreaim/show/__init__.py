"""What an operator is shown: status, top, metrics, history and report, all of them from the daemon's answer.

Each runs as a process of its own. Nothing here is imported by the daemon.
"""
