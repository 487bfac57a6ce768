"""A file of mergekit's, of whichever kind, as a draft of a study."""

from pathlib import Path

import yaml

from mergesearch.errors import SpecError
from mergesearch.study.mergekit.draft import Draft, study_name
from mergesearch.study.mergekit.evolve import draft_of_genome
from mergesearch.study.mergekit.merge import draft_of_merge

_OTHERS = {
    "experts": "a mergekit-moe config, which makes a mixture of experts",
    "gate_mode": "a mergekit-moe config, which makes a mixture of experts",
    "base_architecture": "not a merge of models",
}


def import_mergekit(path: Path) -> Draft:
    """The study that a merge config or a mergekit-evolve config stands for, as far as it says one.

    Raises:
        SpecError: the file cannot be read, or asks for what a study cannot say; the message names it.
    """
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except yaml.composer.ComposerError:
        raise SpecError(f"{path}: several documents (mergekit-multi) are not expressible; give one merge") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not valid YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(body, dict):
        raise SpecError(f"{path}: neither a merge config ('merge_method: ...') nor an evolve config ('genome: ...')")
    name = study_name(path)
    try:
        if "genome" in body:
            return draft_of_genome(body, name)
        if "merge_method" in body:
            return draft_of_merge(body, name)
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None
    found = next((what for key, what in _OTHERS.items() if key in body), None)
    raise SpecError(
        f"{path}: " + (found or "neither a merge config ('merge_method: ...') nor an evolve config ('genome: ...')")
    )
