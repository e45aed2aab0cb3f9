"""OSCAR, the protocol of AIM and ICQ."""
