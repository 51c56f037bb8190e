"""Several jobs of a test at a time: a short run spends most of its time on its start, and there mostly waits."""

import concurrent.futures
import os
from typing import Callable, Iterable

CORES = len(os.sched_getaffinity(0))
# Jobs that compute, or whose moments matter, have a core each; starts that wait for each other have room for more.
COMPUTING = max(2, min(8, CORES))
STARTING = 2 * COMPUTING


def side_by_side(tasks: Iterable[Callable], at_once: int = STARTING) -> list:
    """What each returns, in their order. When one fails, those that have not begun are left out and its failure is raised."""
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        jobs = [pool.submit(task) for task in tasks]
        concurrent.futures.wait(jobs, return_when=concurrent.futures.FIRST_EXCEPTION)
        for job in jobs:
            job.cancel()
    for job in jobs:
        if not job.cancelled() and job.exception() is not None:
            raise job.exception()
    return [job.result() for job in jobs]
