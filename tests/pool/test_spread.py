"""Promises of a live model over several devices. There is no GPU in these tests: devices are the CPU, twice, and
'meta', which computes shapes only but refuses, as a GPU does, to be mixed with another device."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from test_merge_worker import make_study, recipe, scored, values
from test_worker_gradients import job, with_space
from test_worker_gradients import scored as scored_job
from tiny import make_gpt2, make_text, make_vit

from mergesearch.pool.spread import bring, spread
from mergesearch.pool.worker import MergeWorker, WorkerSetup
from mergesearch.types import Request

CPU, META = torch.device("cpu"), torch.device("meta")
TWO = [CPU, CPU]


def load(folder: Path, kind: str) -> torch.nn.Module:
    """A tiny model of a kind, and an input for it."""
    if kind == "vit":
        return transformers.AutoModelForImageClassification.from_pretrained(str(make_vit(folder))).eval()
    if kind == "gpt2":
        return transformers.AutoModelForCausalLM.from_pretrained(str(make_gpt2(folder))).eval()
    return transformers.AutoModelForSequenceClassification.from_pretrained(str(make_text(folder, kind=kind))).eval()


def given(kind: str) -> dict[str, torch.Tensor]:
    """What to ask a tiny model."""
    if kind == "vit":
        return {"pixel_values": torch.zeros(2, 1, 8, 8)}
    return {"input_ids": torch.ones(2, 5, dtype=torch.long), "attention_mask": torch.ones(2, 5, dtype=torch.long)}


@pytest.mark.parametrize("kind", ["vit", "bert", "distilbert", "gpt2"])
def test_what_a_part_is_given_is_brought_to_its_device(tmp_path: Path, kind: str) -> None:
    """The first half stands on one device and the last on another, in the order of the layers, and nothing of one
    meets anything of the other: a forward pass goes through, and tied tensors stay one."""
    model = load(tmp_path, kind)
    tied = len(list(model.parameters()))
    placed = spread(model, [CPU, META])
    devices = [device.type for device in placed.values()]
    assert {"cpu", "meta"} == set(devices)
    assert len(list(model.parameters())) == tied
    if kind == "gpt2":  # its last part is tied to its first, where it stays: nothing comes back from 'meta'
        assert placed["lm_head"] == placed["transformer.wte"] == CPU
        return
    model._forward_hooks.clear()  # for the same reason the answer stays where it is made
    with torch.no_grad():
        answer = model(**given(kind))
    assert answer.logits.device == META
    assert devices == sorted(devices)


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_a_spread_model_answers_as_a_whole_one(tmp_path: Path, kind: str) -> None:
    """To the bit on equal devices, and the answer is on the first device."""
    whole, apart = load(tmp_path / "a", kind), load(tmp_path / "b", kind)
    spread(apart, TWO)
    with torch.no_grad():
        wanted, got = (model(**given(kind), output_hidden_states=True) for model in (whole, apart))
    assert got.logits.equal(wanted.logits)
    assert all(a.equal(b) for a, b in zip(got.hidden_states, wanted.hidden_states, strict=True))


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> WorkerSetup:
    """One study with a space."""
    return with_space(make_study(tmp_path_factory.mktemp("spread"), "vit"))


@pytest.mark.parametrize("operator", ["task_arithmetic", "ties"])
def test_candidates_are_built_and_scored_across_devices(vit: WorkerSetup, operator: str) -> None:
    """As on one device, to the bit, heads of other sizes included."""
    plain, apart = MergeWorker(vit), MergeWorker(vit, devices=TWO)
    for seed in (0, 1, 0):
        work = recipe(vit, seed, operator)
        assert values(scored(apart, work)) == values(scored(plain, work))


@pytest.mark.parametrize("loss", ["loss", "kl", "alignment"])
def test_gradients_pass_across_devices(vit: WorkerSetup, loss: str) -> None:
    """As on one device, with and without a teacher."""
    setup = dataclasses.replace(vit, dtype="float64")
    plain, apart = MergeWorker(setup), MergeWorker(setup, devices=TWO)
    asked = job(setup, Request(0.5, 0.25, loss))
    wanted, got = scored_job(plain, asked).gradients, scored_job(apart, asked).gradients
    assert set(wanted) == set(got) == {"one", "two"}
    for name in wanted:
        assert got[name] == pytest.approx(wanted[name], rel=1e-9)


def test_all_that_holds_tensors_is_gone_through() -> None:
    """Lists, tuples with and without names, mappings of their own kind; what is no tensor stays as it is."""
    kind = transformers.modeling_outputs.SequenceClassifierOutput
    moved = bring(([torch.ones(1)], {"a": torch.ones(2)}, "text", None, kind(logits=torch.ones(3))), META)
    assert moved[0][0].device == moved[1]["a"].device == moved[4].logits.device == META
    assert isinstance(moved[4], kind)
    assert moved[2:4] == ("text", None)
