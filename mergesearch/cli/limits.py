"""The limits of a search that `resume` can raise, as options."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias

import typer

from mergesearch.errors import SpecError

OFF = "off"


def _option(name: str, text: str) -> Any:
    return typer.Option(name, help=text, show_default=False)


EvaluationsOption: TypeAlias = Annotated[
    int | None, _option("--evaluations", "New budget of evaluations, those made so far included.")
]
ExamplesOption: TypeAlias = Annotated[
    str | None, _option("--examples", "New budget of search examples that workers score, or 'off'.")
]
GpuSecondsOption: TypeAlias = Annotated[str | None, _option("--gpu-seconds", "New budget of GPU-seconds, or 'off'.")]
HoursOption: TypeAlias = Annotated[
    str | None, _option("--hours", "New budget of hours that controllers run, or 'off'.")
]
TargetOption: TypeAlias = Annotated[
    str | None,
    _option("--target", "Values that end the search once one merge has them all: acc=0.9,loss=0.2, or 'off'."),
]
PlateauOption: TypeAlias = Annotated[
    str | None, _option("--plateau", "End when the last N evaluations gained less than GAIN: N:GAIN, N, or 'off'.")
]


def limits(
    evaluations: int | None,
    examples: str | None,
    gpu_seconds: str | None,
    hours: str | None,
    target: str | None,
    plateau: str | None,
) -> Mapping[str, object]:
    """The limits that were given, as `mergesearch.resume` takes them.

    Raises:
        SpecError: a value that is neither a number nor 'off', a target that is no NAME=VALUE.
    """
    found: dict[str, object] = {} if evaluations is None else {"evaluations": evaluations}
    texts: list[tuple[str, str | None, Callable[[str], object]]] = [
        ("examples", examples, lambda text: int(text)),
        ("gpu_seconds", gpu_seconds, float),
        ("hours", hours, float),
        ("target", target, _target),
        ("plateau", plateau, _plateau),
    ]
    for name, text, read in texts:
        if text is None:
            continue
        try:
            found[name] = OFF if text == OFF else read(text)
        except ValueError:
            form = {"target": "NAME=VALUE,NAME=VALUE", "plateau": "N or N:GAIN"}.get(name, "a number")
            raise SpecError(f"--{name.replace('_', '-')} {text!r} must be {form}, or 'off'") from None
    return found


def _target(text: str) -> dict[str, float]:
    pairs = [part.split("=") for part in text.split(",")]
    return {name.strip(): float(value) for name, value in pairs}


def _plateau(text: str) -> dict[str, float]:
    evaluations, colon, gain = text.partition(":")
    return {"evaluations": float(evaluations), **({"gain": float(gain)} if colon else {})}
