"""Adam on one tensor whose gradient is known in closed form: the iterative forms of WUDI and DOGE.

Source: Kingma and Ba, arXiv:1412.6980, with torch's defaults: β = (0.9, 0.999), and ε = 1e-8 outside the
corrected root.
"""

from collections.abc import Callable

import torch


def adam(
    start: torch.Tensor, gradient: Callable[[torch.Tensor], torch.Tensor], steps: int, learning_rate: float
) -> torch.Tensor:
    """`start` after that many steps; `gradient(x)` is the loss's at x, a new tensor of its shape. Changes no input."""
    first, second, epsilon = 0.9, 0.999, 1e-8
    x = start.clone()
    mean, square = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(1, steps + 1):
        g = gradient(x)
        mean.lerp_(g, 1.0 - first)
        square.mul_(second).addcmul_(g, g, value=1.0 - second)
        root = torch.sqrt(square, out=g).div_((1.0 - second**step) ** 0.5).add_(epsilon)
        x.addcdiv_(mean, root, value=-learning_rate / (1.0 - first**step))
    return x
