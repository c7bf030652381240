"""How the scripts here time work on a GPU."""

import statistics

import torch


def milliseconds(run):
    """The median of 11 runs after 3, between CUDA events."""
    for _ in range(3):
        run()
    times = []
    for _ in range(11):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)
