"""Filters for more students than there are partitions (A, section 5.1).  Torch-free."""

from itertools import accumulate, chain, pairwise

import numpy as np

from nonn_core.partition import Filters
from profiles.errors import InputError


def reshuffled(partitions: tuple[Filters, ...], students: int, seed: int) -> tuple[Filters, ...]:
    """Return the filters that each of `students` students mimics.

    The first ones mimic the partitions as they are.  Each further group of as many students gets
    the filters of all partitions together, shuffled and cut into the same sizes, so that it knows
    as much as the first group, differently divided; the last group may lack its last students.

    Raises InputError when a filter lies in two partitions or there are fewer students than these.
    """
    if students < len(partitions):
        raise InputError(
            "fewer students than there are partitions of the teacher's filters",
            found=students,
            allowed=f"{len(partitions)} or more",
        )
    known = list(chain.from_iterable(partitions))
    if len(set(known)) < len(known):
        raise InputError("filters can be reshuffled only where no two students share one")
    generator = np.random.default_rng(seed)
    cuts = [0, *accumulate(map(len, partitions))]
    found = list(partitions)
    while len(found) < students:
        order = generator.permutation(known).tolist()
        found += [tuple(sorted(order[start:end])) for start, end in pairwise(cuts)]
    return tuple(found[:students])
