"""Random masks without stored masks: a number in [0, 1) for each entry, computed anew from its position when needed.

Entry j of a tensor has a 32-bit word that depends on (seed, expert name, tensor name, j) alone, so masks do not depend
on chunks, threads, device or the order of the experts, and candidates with one seed share them (common random numbers).
The word is that of "triple32", a bijection of 32-bit words with all but ideal avalanche (C. Wellons, public domain,
github.com/skeeto/hash-prospector), with two keys of 32 bits from BLAKE2b: key0 is added to j before, key1 is xored in
before the second of its three multiplications. For every 2^32 entries key1 grows by an odd constant.

The entry's number is u = (word >> 8) / 2^24, exact in float32, and it is kept where u < p for a float32 probability p:
p = 1 keeps all, p = 0 none, and what is kept at p is kept at any larger p. Never change the words: recipes name a seed.
"""

import json
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray

FACTORS = (0xED5AD4BB, 0xAC4C1B51, 0x31848BAB)
"""The multipliers of triple32."""
SHIFTS = (17, 11, 15, 14)
"""By how much the word is shifted and xored with itself before each multiplication, and at the end."""
SEGMENT = 0x9E3779B9
"""What key1 grows by for every 2^32 entries."""


def keys(seed: int, experts: Sequence[str], tensor: str) -> NDArray[np.uint32]:
    """(K, 2): the keys of each expert's stream for one tensor."""
    names = [json.dumps([seed, expert, tensor]).encode() for expert in experts]
    digests = [blake2b(name, digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u4").astype(np.uint32).reshape(-1, 2)


def words(key: NDArray[np.uint32], begin: int, end: int, device: torch.device | None = None) -> torch.Tensor:
    """Words of entries `begin` to `end` as int32, which holds the same 32 bits. `key` (2,)."""
    j = torch.arange(begin, end, dtype=torch.int64, device=device)
    word = (j + int(key[0])).to(torch.int32)  # keeps the lower 32 bits, as do products that overflow
    second = (j >> 32).mul_(SEGMENT).add_(int(key[1])).to(torch.int32)
    for i, (shift, factor) in enumerate(zip(SHIFTS[:3], FACTORS, strict=True)):
        word.bitwise_xor_(_shifted(word, shift))
        if i == 1:
            word.bitwise_xor_(second)
        word.mul_(factor if factor < 1 << 31 else factor - (1 << 32))
    return word.bitwise_xor_(_shifted(word, SHIFTS[3]))


def uniforms(key: NDArray[np.uint32], begin: int, end: int, device: torch.device | None = None) -> torch.Tensor:
    """u of entries `begin` to `end`, float32 in [0, 1)."""
    return _shifted(words(key, begin, end, device), 8).to(torch.float32).mul_(2.0**-24)


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """int32 `x` shifted right with zeros coming in."""
    return (x >> bits).bitwise_and_((1 << (32 - bits)) - 1)
