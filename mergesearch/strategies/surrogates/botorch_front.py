"""BoTorch's expected hypervolume improvement over our fits. The only strategy module that imports torch; load it late.

qLogNoisyExpectedHypervolumeImprovement: Daulton et al., arXiv:2105.08195; its log form Ament et al., arXiv:2310.20708.
The parameters come from our own analytic fit, so BoTorch's fitting, the slow part, is not needed. Torch's global
generator is put back as it was; numpy's is not touched.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from botorch.acquisition.multi_objective import logei
from botorch.generation.gen import gen_candidates_scipy
from botorch.models import ModelListGP, SingleTaskGP
from botorch.sampling import SobolQMCNormalSampler
from gpytorch.kernels import MaternKernel, ScaleKernel

from mergesearch.strategies.surrogates.gaussian_process import Matrix, Process
from mergesearch.types import Vector


@contextmanager
def quiet(seed: int) -> Iterator[None]:
    """Torch's CPU generator is seeded within and put back after; numerical warnings are kept from the caller."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach for the accelerators' generators too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_rng_state(state)


def improvement(
    processes: Sequence[Process], reference: Vector, pending: Matrix, samples: int, seed: int, most_pending: int = 32
) -> Any:
    """The acquisition (larger is better) of processes of standardised losses, one per objective.

    `reference` (M,) in the same units. Of `pending` (k, D) the latest `most_pending` enter. Call within `quiet`.
    """
    models = [_model(process) for process in processes]
    baseline = _tensor(processes[0].points)
    waiting = _tensor(pending[-most_pending:]) if len(pending) else None
    # BoTorch 0.18 else compiles a kernel at first use, into the user's cache and for this CPU; where that is killed
    # its lock stays and every later process waits for ever. It has no switch but its own mark of having tried.
    logei._load_attempted = True
    return logei.qLogNoisyExpectedHypervolumeImprovement(
        model=ModelListGP(*models),
        ref_point=(-reference).tolist(),
        X_baseline=baseline,
        sampler=SobolQMCNormalSampler(torch.Size([samples]), seed=seed),
        X_pending=waiting,
        prune_baseline=True,
    )


def values(acquisition: Any, points: Matrix) -> Vector:
    """The acquisition (k,) at points (k, D), 128 at a time."""
    with torch.no_grad():
        parts = [acquisition(_tensor(points[i : i + 128])[:, None, :]) for i in range(0, len(points), 128)]
    return np.asarray(np.nan_to_num(torch.cat(parts).numpy(), nan=-1e10, neginf=-1e10), dtype=np.float64)


def uphill(acquisition: Any, starts: Matrix, iterations: int) -> tuple[Matrix, Vector]:
    """Points (k, D) that L-BFGS reaches from all the starts at once, within the cube, and their values (k,)."""
    points, _ = gen_candidates_scipy(
        _tensor(starts)[:, None, :], acquisition, lower_bounds=0.0, upper_bounds=1.0, options={"maxiter": iterations}
    )
    reached = np.clip(np.nan_to_num(points.detach()[:, 0, :].numpy(), nan=0.5), 0.0, 1.0)
    return reached, values(acquisition, reached)


def _model(process: Process) -> SingleTaskGP:
    """The process as BoTorch's, of negated losses."""
    kernel = ScaleKernel(MaternKernel(nu=2.5, ard_num_dims=process.points.shape[1])).double()
    kernel.base_kernel.lengthscale = _tensor(process.hyper.lengths)
    kernel.outputscale = process.hyper.output
    model = SingleTaskGP(
        _tensor(process.points),
        _tensor(-process.targets[:, :1]),
        _tensor(np.maximum(process.noise, 1e-6)[:, None]),
        covar_module=kernel,
        outcome_transform=None,
    )
    with torch.no_grad():
        model.mean_module.raw_constant.fill_(-process.mean)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.eval()


def _tensor(values: Matrix | Vector) -> Any:
    return torch.tensor(values, dtype=torch.float64)
