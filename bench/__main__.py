"""``python -m bench``: what a queued packet costs, on one CPU."""

import os

from bench import callback, pingpong

if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    callback.main()
    pingpong.main()
