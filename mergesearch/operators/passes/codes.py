"""What compression operators share: matrices as a few bits per entry and expert and a scalar, the rest in full."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, final

import numpy as np
import torch

from mergesearch.operators.algebra.spectral import for_each
from mergesearch.operators.base import Layout, Tensors
from mergesearch.operators.passes.chunked import chunks, wide
from mergesearch.operators.passes.packing import mask_bytes, sign_bytes
from mergesearch.operators.passes.sign_pass import coded_sum
from mergesearch.operators.passes.stream import Stream, Weights
from mergesearch.space import Settings

_SUMMED = 1 << 16
"""Entries per slice on a CPU: they fit the second-level cache."""

Encode: TypeAlias = Callable[[str, int, float | None, torch.Tensor], float]
"""(tensor name, expert, its structural knob, plane of bytes (N,)) -> the scalar; writes the expert's code into it."""


@final
class Codes:
    """Prepared and Compressed; see `operators/base.py`. Expert k's change of a matrix is scalar_k times 1 or -1
    (`bits` 1: its bit set or not), or 0 as well (`bits` 2: lower bit not set; upper bit set: -1).

    `structure`: the knob that codes depend on, None: none; they are
    made anew only for the experts of which it changes. `multiplier`: a knob that multiplies every change, None: none.
    """

    def __init__(
        self,
        stream: Stream,
        layout: Layout,
        matrices: Sequence[str],
        bits: int,
        encode: Encode,
        structure: str | None = None,
        multiplier: str | None = None,
    ) -> None:
        self._stream, self._layout, self._matrices = stream, layout, frozenset(matrices)
        self._bits, self._encode, self._structure, self._multiplier = bits, encode, structure, multiplier
        self._codes: dict[str, torch.Tensor] = {}  # uint8 (planes, N)
        self._scalars: dict[tuple[str, int], tuple[float | None, float]] = {}  # (name, expert): knob, what it gave

    def apply(self, settings: Settings, names: Sequence[str], into: Tensors) -> None:
        """See `Prepared.apply`."""
        self._merge(settings, names, settings["coefficient"] * settings["scale"][:, :1], into)

    def rebuild(self, settings: Settings, expert: int, names: Sequence[str], into: Tensors) -> None:
        """See `Compressed.rebuild`. Tensors that are no matrices are the expert's own, to the bit."""
        alone = np.zeros((len(self._layout.groups), len(self._layout.experts)))
        alone[:, expert] = 1.0
        matrices = [name for name in names if name in self._matrices]
        self._merge(settings, matrices, alone, into)
        rest = [name for name in names if name not in self._matrices]
        own = np.zeros((len(rest), 1 + alone.shape[1]))
        own[:, 1 + expert] = 1.0
        self._stream.weighted_sum(rest, own, into, centred=False)

    def stored_bytes(self, settings: Settings) -> int:
        """See `Compressed.stored_bytes`: coded masks, signs, a scalar per matrix and expert, the rest in full."""
        experts, total = len(self._layout.experts), 0
        self._refresh(settings, [name for name in self._stream.names if name in self._matrices])
        for name in self._stream.names:
            tensor = self._stream.flat(0, name)
            if name not in self._matrices:
                total += experts * tensor.numel() * tensor.element_size()
                continue
            for k in range(experts):
                kept = tensor.numel() if self._bits == 1 else self._active(name, k)
                total += mask_bytes(kept, tensor.numel()) + sign_bytes(kept) + wide(tensor.dtype).itemsize
        return total

    def _active(self, name: str, expert: int) -> int:
        """How many entries of a matrix an expert's code changes, where there are two bits."""
        plane = self._codes[name][expert // 4]
        bit = 1 << (2 * (expert % 4))
        return sum(int((plane[part] & bit).count_nonzero()) for part in chunks(plane.numel(), plane.device))

    def bytes_read(self) -> int:
        """Bytes that the next candidate reads beside the base, if no code is made anew."""
        rest = [self._stream.flat(0, name) for name in self._stream.names if name not in self._matrices]
        whole = sum(flat.numel() * flat.element_size() for flat in rest)
        return sum(codes.numel() for codes in self._codes.values()) + len(self._layout.experts) * whole

    def code(self, settings: Settings, name: str, expert: int) -> tuple[float, torch.Tensor]:
        """The scalar of one expert in one matrix, and the sign of each entry: int8 (N,) of -1, 0 and 1."""
        self._refresh(settings, [name])
        per = 8 // self._bits
        codes = self._codes[name][expert // per] >> (self._bits * (expert % per))
        levels = torch.tensor((-1, 1, -1, 1) if self._bits == 1 else (0, 1, 0, -1), dtype=torch.int8)
        return self._scalars[name, expert][1], levels.to(codes.device)[(codes & 3).int()]

    def _merge(self, settings: Settings, names: Sequence[str], weights: Weights, into: Tensors) -> None:
        """Write base + Σ w_k · (the change that code k gives, or the full one in a tensor that is no matrix)."""
        group_of, experts = self._layout.group_of, range(len(self._layout.experts))
        matrices = [name for name in names if name in self._matrices]
        self._refresh(settings, matrices)
        change = np.zeros((len(matrices), len(experts)))
        for i, name in enumerate(matrices):
            row = group_of[name]
            factor = 1.0 if self._multiplier is None else float(settings[self._multiplier][row, 0])
            change[i] = [float(weights[row, k]) * factor * self._scalars[name, k][1] for k in experts]
        coded_sum(self._stream, matrices, self._codes, change, self._bits, into)
        rest = [name for name in names if name not in self._matrices]
        full = np.zeros((len(rest), 1 + len(experts)))
        full[:, 1:] = weights[[group_of[name] for name in rest]]
        self._stream.weighted_sum(rest, full, into, centred=True)

    def _refresh(self, settings: Settings, matrices: Sequence[str]) -> None:
        """Make the codes of these matrices that are not there, or were made at another value of the knob."""
        per, experts = 8 // self._bits, len(self._layout.experts)

        def refresh(name: str) -> None:
            if name not in self._codes:
                base = self._stream.flat(0, name)
                planes = -(-experts // per)
                self._codes[name] = torch.zeros((planes, base.numel()), dtype=torch.uint8, device=base.device)
            for k in range(experts):
                value = self._value(settings, name, k)
                if self._scalars.get((name, k), (math.nan,))[0] != value:
                    self._scalars.pop((name, k), None)
                    scalar = self._encode(name, k, value, self._codes[name][k // per])
                    self._scalars[name, k] = (value, scalar)

        def is_stale(name: str) -> bool:
            found = [self._scalars.get((name, k), (math.nan,))[0] for k in range(experts)]
            return any(old != self._value(settings, name, k) for k, old in enumerate(found))

        for_each([name for name in matrices if is_stale(name)], refresh)

    def _value(self, settings: Settings, name: str, expert: int) -> float | None:
        return (
            None if self._structure is None else float(settings[self._structure][self._layout.group_of[name], expert])
        )


def changed(base: torch.Tensor, expert: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """expert - base of flat tensors in float32 (float64 for float64), in slices of a fixed size.

    Sums over each slice do not depend on how other passes are cut into chunks.
    """
    dtype = wide(base.dtype)
    for part in chunks(base.numel(), base.device, _SUMMED if base.device.type == "cpu" else None):
        yield part, expert[part].to(dtype) - base[part].to(dtype)


def stored(scalar: float, dtype: torch.dtype) -> float:
    """The scalar as a file would hold it: in float32, or float64 for a float64 tensor."""
    return float(torch.tensor(scalar, dtype=wide(dtype)))
