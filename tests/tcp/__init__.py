"""TCP for all tests, written from the RFCs: nothing here imports nfreaim, whose work it judges.

packets   make an IPv4/TCP packet, read one, count its checksums
judge     what may differ between a packet that came and the one that left
ends      a small TCP end that sends a text and judges what it receives
captures  pcap files, scripted conversations, what the streams of a capture carried
pcapng    pcapng files, block by block
recut     a capture's conversations in other segments
tshark    Wireshark's opinion of a capture
"""
