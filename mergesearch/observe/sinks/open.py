"""From the words of a command line, 'wandb:project=merges', to who writes a running study there."""

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mergesearch.errors import MergesearchError, SpecError
from mergesearch.observe.passwords import hide_passwords
from mergesearch.observe.sinks import SINKS
from mergesearch.observe.sinks.base import Heading, Sink
from mergesearch.observe.sinks.observer import Known, SinkObserver
from mergesearch.plugins import PluginOptions, load, parse_options
from mergesearch.results import Results
from mergesearch.store.base import StudyStore
from mergesearch.stored import StoredStudy, objectives_of, stored


@dataclass(frozen=True)
class Chosen:
    """A sink that was asked for; its package is there and its options are right."""

    kind: str
    plugin: type[Sink]
    options: PluginOptions
    folder: Path

    def observer(self, known: Callable[[str], Known]) -> SinkObserver:
        """Who writes it; `known` looks a study up."""
        return SinkObserver(self.kind, lambda heading: self.plugin(self.options, self.folder, heading), known)


def choose(text: str, folder: Path) -> Chosen:
    """The sink that 'KIND' or 'KIND:option=value,...' names, its files in a subfolder of `folder`.

    Raises:
        SpecError: an unknown kind or option, or a package that is not installed.
    """
    kind, _, rest = text.partition(":")
    plugin = load("sink", SINKS, kind)
    values = {}
    for part in rest.split(",") if rest else ():
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key and equals):
            raise SpecError(f"sink {kind!r}: cannot read {part!r}; options look like {kind}:project=merges")
        values[key] = value
    options = parse_options(f"sink {kind!r}", plugin.Options, values)
    if importlib.util.find_spec(plugin.PACKAGE) is None:
        raise SpecError(f"sink {kind!r} needs a package that is not installed: pip install 'mergesearch[{kind}]'")
    return Chosen(kind, plugin, options, folder / kind)


def known_of(opened: Callable[[], StudyStore], name: str) -> Known:
    """What a store knows of a study; its name alone where the store cannot tell, such as one in memory."""
    try:
        store = opened()
        try:
            record, facts = store.study(name), store.facts(name)
        finally:
            store.close()
        study = stored(record, facts, Results(objectives_of(facts)))
    except (MergesearchError, KeyError):
        return Known(Heading(name, _key(name, 0.0)))
    return Known(_heading(study), study.space)


def _heading(study: StoredStudy) -> Heading:
    record, space, facts = study.record, study.space, study.facts
    config: dict[str, str | int | float] = {
        "study": record.name,
        "strategy": str(facts.get("strategy", "")),
        "budget": study.budget,
        "axes": space.dim,
    }
    if space.slots:
        config |= {"experts": ", ".join(space.experts), "groups": len(space.groups)}
    merge = facts.get("merge")
    if isinstance(merge, dict):
        config["operator"] = str(merge.get("operator", ""))
    return Heading(record.name, _key(record.name, record.created), config, hide_passwords(record.spec))


def _key(name: str, created: float) -> str:
    return hashlib.sha256(f"{name}\n{created!r}".encode()).hexdigest()
