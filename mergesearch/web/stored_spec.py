"""The study file of a study that stands in the store, looked at before a process is started for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mergesearch.errors import SpecError
from mergesearch.study.black_box import BlackBoxSpec, is_black_box, parse_black_box
from mergesearch.study.bounded import load_bounded
from mergesearch.study.spec import StudySpec
from mergesearch.study.text import Source, parse_spec
from mergesearch.web.security.paths import outside, within
from mergesearch.web.service import Service


def spec_of(service: Service, name: str) -> tuple[StudySpec | BlackBoxSpec, Mapping[str, Any], Path]:
    """A study's spec and facts, and the folder where its relative paths start.

    Raises:
        StudyNotFound: there is none of that name.
        SpecError: it was launched with no file, or its paths lead out of the server's folders.
    """
    record, facts, roots = service.store.study(name), service.store.facts(name), service.settings.roots
    source = Source(f"study {name!r}", record.spec, roots[0])
    if not record.spec:
        raise SpecError(f"study {name!r} was started by a program of its own; no process here could go on with it")
    if is_black_box(record.spec, source.name):
        return parse_black_box(source), facts, roots[0]
    spec, root = parse_spec(source), Path(str(facts.get("root", ".")))
    found = next(iter(outside(load_bounded(record.spec, source.name), root, roots)), None)
    if not within(root, roots) or found is not None:
        what = "was launched" if found is None else f"has a path ({'.'.join(map(str, found[0]))}) that leads"
        raise SpecError(
            f"study {name!r} {what} outside of the folders that this server may use; have it started with --root for "
            "that folder, or use the command line"
        )
    return spec, facts, root
