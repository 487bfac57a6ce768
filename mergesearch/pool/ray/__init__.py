"""Workers as Ray actors: on this machine, or on a cluster by its address. The only package that knows Ray."""

from mergesearch.pool.ray.options import Options
from mergesearch.pool.ray.pool import RayPool

__all__ = ["Options", "RayPool"]
