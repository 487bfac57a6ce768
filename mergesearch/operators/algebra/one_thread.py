"""Linear algebra with the same bits on any number of threads.

Matrix libraries share a product or a factorisation out over threads, and the order of its sums with it. A candidate
must not depend on that, so what is factorised for it is factorised by one thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one CPU thread within the block; the number it had afterwards. No effect on a GPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
