"""The columns of the kernel's statistics: who exchanges two of them reports losses that never were."""

from __future__ import annotations

from nfreaim.host.netfilter.queue_stats import QueueStatistics, parse


def test_each_column_is_what_the_kernel_says_it_is() -> None:
    # seq_show of net/netfilter/nfnetlink_queue.c: "%5u %6u %5u %1u %5u %5u %5u %8u %2d"
    line = " 5190  31337     4 2 65535     7     9      123  1"
    assert parse(line) == QueueStatistics(5190, 31337, 4, 7, 9, 123)
