"""What a Ray profile says: how many workers, of what size, where, and how the models reach them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from mergesearch.plugins import PluginOptions
from mergesearch.pool.base import WorkerOptions


class Elastic(PluginOptions):
    """As many workers as fit on the cluster's nodes, which may come and go."""

    min: PositiveInt = 1  # that many are asked of the cluster even when they do not fit yet
    max: PositiveInt | None = None  # never more; None: as many as fit

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max is not None and self.max < self.min:
            raise ValueError(f"max is {self.max}, less than min, which is {self.min}")
        return self


def _a_size(value: Any) -> Any:
    """One sentence where pydantic would have one for each form."""
    number = isinstance(value, int) and not isinstance(value, bool) and value > 0
    if number or value == "auto" or isinstance(value, Mapping | Elastic):
        return value
    raise ValueError("workers is a number above 0, 'auto', or bounds such as {min: 1, max: 16}")


class Options(WorkerOptions):
    """A worker is one process. It computes with cpus_per_worker threads unless threads_per_worker says otherwise."""

    # 'local' starts a Ray for this study; 'auto' finds a running one; 'host:port' joins one as a node of it;
    # 'ray://host:port' reaches one from outside, through its client server.
    address: str = "local"
    # A number; 'auto', as many as fit, on this machine at most 4; or {min: 1, max: 16}, as many as fit between these.
    workers: Annotated[PositiveInt | Literal["auto"] | Elastic, BeforeValidator(_a_size)] = "auto"
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0  # 0.5: two workers share a GPU; 2: a candidate over two; 0: no GPU is seen
    memory_gb: PositiveFloat | None = None  # GiB that Ray sets aside for each on its node; None: not counted
    runtime_env: Mapping[str, Any] = Field(default_factory=dict)  # Ray's, for the workers: env_vars, pip, working_dir
    models: Literal["files", "object_store"] = "files"  # object_store: sent once to each node, no shared disk needed
    timeout_s: Annotated[float, Field(gt=0)] | None = None  # seconds a job may take; None: no limit
    # URL of a cluster's Jobs API, 'http://head:8265': `mergesearch launch` then runs the controller there, as a Ray job
    jobs: Annotated[str, Field(pattern=r"^https?://[^/@]+/?$")] | None = None
    root: Annotated[str, Field(pattern=r"^/")] | None = None  # with jobs: the cluster's folder for relative paths

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        """Ray lends a part of one GPU, or several whole ones."""
        if self.gpus_per_worker > 1 and not float(self.gpus_per_worker).is_integer():
            raise ValueError(f"gpus_per_worker is {self.gpus_per_worker:g}; above 1 it must be a whole number")
        return self

    @model_validator(mode="after")
    def _jobs_have_a_root(self) -> Self:
        """A study file's relative paths start in a folder of the cluster, since its controller runs there."""
        if self.jobs and not self.root:
            raise ValueError(
                "'jobs' needs 'root: /folder', where relative paths of the study file start on the cluster"
            )
        if self.root and not self.jobs:
            raise ValueError("'root' goes with 'jobs'; without it, relative paths start in the current folder")
        if self.jobs and self.address not in ("local", "auto"):
            raise ValueError("with 'jobs' the controller runs on the cluster and finds it: leave 'address' out")
        return self

    @property
    def threads(self) -> int:
        """Computing threads of a worker."""
        return self.threads_per_worker or max(1, int(self.cpus_per_worker))

    @property
    def needs(self) -> dict[str, float]:
        """What a worker takes of its node, in Ray's names and units (memory in bytes)."""
        memory = (self.memory_gb or 0.0) * 2**30
        wants = {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker, "memory": memory}
        return {kind: amount for kind, amount in wants.items() if amount > 0}
