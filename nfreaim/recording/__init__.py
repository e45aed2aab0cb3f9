"""Recording: makes copies of captured packets that hold no secrets, so that they can be given away.

Headers stay, and of the payload what each protocol's Redactor lets through (core.redaction); every other byte
is overwritten, and nothing has another length. So ``nfreaim explain`` tells of the copy what it tells of the
original. What no protocol has recognised, and what it cannot read, loses its whole payload. No module here
needs root; host/record/ takes packets from the router's interfaces.
"""
