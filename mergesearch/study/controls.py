"""Controls: the same study with its search, or its experts, replaced by something that knows nothing.

A control is a study of its own beside the one it belongs to, with the same budget and data; reports show its row.
"""

from pathlib import Path
from typing import Any

import yaml

from mergesearch.checkpoints.adapter import AdapterFolder
from mergesearch.checkpoints.compare import is_head
from mergesearch.checkpoints.random_expert import write_random_expert
from mergesearch.errors import SpecError
from mergesearch.study.resolve import ResolvedStudy
from mergesearch.study.source import Source, parse_study
from mergesearch.study.spec import Control, StudySpec

FOLDER = Path("runs") / "controls"


LABELS = {
    Control.RANDOM: "random search",
    Control.LAMBDA: "one λ for all, equal budget",
    Control.RANDOM_EXPERTS: "random experts",
}
"""What the row of a control is called."""


def control_name(study: str, control: Control) -> str:
    """The name of a control's study."""
    return f"{study}--{control.value}"


def control_study(resolved: ResolvedStudy, control: Control) -> tuple[StudySpec, Source]:
    """The study of a control, and its text. Random experts are written under runs/controls first.

    Raises:
        SpecError: the study has no coefficient to make one λ of, or experts that are adapters.
        CheckpointError: the random experts cannot be written.
    """
    spec = resolved.spec
    body = spec.model_dump(mode="json", exclude_defaults=True)
    body |= {"name": control_name(spec.name, control), "control_of": spec.name}
    body.pop("controls", None)
    body.pop("baselines", None)
    if control is Control.RANDOM:
        body["strategy"] = {"kind": "random", "seed": spec.strategy.seed}
    elif control is Control.LAMBDA:
        body["strategy"] = {"kind": "random", "seed": spec.strategy.seed}
        body["space"] = _one_lambda(resolved)
    else:
        body["models"] = {"base": spec.models.base, "experts": _random_experts(resolved)}
    source = Source(
        f"control {control.value!r} of study {spec.name!r}", yaml.safe_dump(body, sort_keys=False), resolved.root
    )
    return parse_study(source), source


def _one_lambda(resolved: ResolvedStudy) -> dict[str, Any]:
    """The space with every coefficient tied to one; whatever else is searched is held where it starts."""
    spec, held = resolved.spec.space, {}
    knobs = {axis.name.split(".")[0] for axis in resolved.space.axes}
    if "coefficient" not in knobs:
        raise SpecError(
            f"control 'lambda': study {resolved.spec.name!r} searches no coefficient ({', '.join(sorted(knobs))}), so "
            "there is no single λ to compare with; leave this control out"
        )
    start = resolved.space.decode(resolved.space.start)
    for knob in sorted(knobs - {"coefficient"}):
        held[knob] = float(start[knob].mean())
    given = {k: v for k, v in spec.model_dump(mode="json", exclude_defaults=True).items() if k not in held}
    kept = {name: value for name, value in given.get("fix", {}).items() if name.split(".")[0] not in held}
    given.pop("start", None)
    return {**given, **held, "fix": kept, "tie": [["coefficient*"]]}


def _random_experts(resolved: ResolvedStudy) -> dict[str, str]:
    spec, paths = resolved.spec, {}
    for name, expert in resolved.experts.items():
        if isinstance(expert, AdapterFolder):
            raise SpecError(
                f"control 'random_experts': expert {name!r} is a LoRA adapter, and random adapters are not made; "
                "leave this control out"
            )
        folder = FOLDER / control_name(spec.name, Control.RANDOM_EXPERTS) / name
        write_random_expert(
            resolved.base, expert, resolved.root / folder, spec.strategy.seed, lambda t: is_head(t, spec.merge.heads)
        )
        paths[name] = str(folder)
    return paths
