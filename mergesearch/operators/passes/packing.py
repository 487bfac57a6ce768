"""How many bytes a file needs for masks and signs."""

import math


def mask_bytes(kept: int, entries: int) -> int:
    """Bytes of a mask with `kept` ones among `entries`: what an arithmetic coder needs that knows their share.

    That is the entropy of the share, at most a bit per entry; half of 1,000 entries take 125 bytes, 10 of them 11.
    """
    if not 0 < kept < entries:
        return 0
    share = kept / entries
    bits = -share * math.log2(share) - (1.0 - share) * math.log2(1.0 - share)
    return math.ceil(entries * bits / 8)


def sign_bytes(kept: int) -> int:
    """Bytes of so many signs, a bit each."""
    return -(-kept // 8)
