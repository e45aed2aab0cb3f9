"""The words of XMPP that all tests share."""
