"""Parity with the authors' code, on every golden file found on disk (GOLDENS, which may name several folders, else
../shared/goldens and ../shared/goldens-plusplus).

A model, training or e2e file names a benchmark: `params/<name>.yaml` says what is built. The pictures of e2e files are
looked up in SAMPLES, else ../shared/data/samples.
"""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from helpers import dense_memory
from helpers.golden_recipe import (
    GOLDENS,
    TERMS,
    blocky_labels,
    golden_files,
    golden_memory,
    read_golden,
    replayed_updates,
    unit,
    weight,
)
from helpers.model_benchmarks import trainer_of
from helpers.project import ROOT
from helpers.tensors import after_update

from pipeline.checkpoints.key_names import from_published, rename_backbone
from pipeline.config import load_benchmark
from pipeline.config.schema import ProtocolConfig
from pipeline.datasets import get_dataset
from pipeline.datasets.prepared import evenly_spaced, read_image
from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.datasets.transforms import EvalTransform
from pipeline.evaluation.views import predict
from pipeline.models import build_segmentor
from pipeline.models.distribution import DistributionMemory, class_codes
from pipeline.models.encoders.swin_large import SwinEncoder
from pipeline.runtime.device import set_kernels
from pipeline.training.step import training_step

DEVICE = os.environ.get("GOLDENS_DEVICE", "cpu")  # for networks, their training and label maps
if DEVICE != "cpu":  # on the CPU it would set the deterministic mode for all tests of this process
    set_kernels(torch.device(DEVICE), "float32")
# A GPU adds in another order than the processor that the goldens were made on; so do other instructions of a processor.
ROUNDING, TIGHT_STEPS, LAST_NORM = (1, 2, 1e-5) if DEVICE == "cpu" else (10, 1, 1e-3)
SAMPLES = Path(os.environ.get("SAMPLES", ROOT.parent / "shared" / "data" / "samples"))


def each_golden(kind, pattern, slow=frozenset()):
    files = [pytest.param(f, marks=[pytest.mark.slow] * (f.stem in slow)) for f in golden_files(kind, pattern)]
    absent = [pytest.param(None, marks=pytest.mark.skip(reason=f"no golden {kind}/{pattern} on this machine"))]
    return pytest.mark.parametrize("path", files or absent, ids=lambda path: path.stem if path else "none")


def relative_error(ours, golden):
    golden = torch.from_numpy(golden)
    return ((ours.cpu() - golden).abs().max() / golden.std()).item()


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("update", [after_update, dense_memory.dense_update], ids=["low-resolution", "dense"])
@each_golden("memory", "update_*.npz")
def test_memory_after_each_update_is_the_authors(path, update):
    for memory, golden in replayed_updates(path, update):
        assert relative_error(memory, golden) < 1e-5


@each_golden("memory", "plusplus*.npz")
def test_distribution_memory_is_the_authors(path):
    """Its vectors, its output, and its two statistics per class after an update."""
    _, arrays, state = read_golden(path, prefix="memory_module.")
    classes, channels = arrays["sampled_memory"].shape
    width = len(state["memory_module.self_attention.out_project.0.weight"][0])
    module = DistributionMemory(classes, channels, width, fuse_context=False)
    renamed = from_published(state, [f"memory.{key}" for key in module.state_dict()])
    module.load_state_dict({key.removeprefix("memory."): value for key, value in renamed.items()})
    module.memory = torch.from_numpy(arrays["memory_before"])
    assert torch.equal(module.vectors()[:, 0], torch.from_numpy(arrays["sampled_memory"]))
    features, logits, labels = (torch.from_numpy(arrays[name]) for name in ("feats", "logits", "labels"))
    with torch.no_grad():
        assert relative_error(module.eval()(features, logits), arrays["out"]) < 1e-5
    labels = labels.long().where(labels >= 0, IGNORE_INDEX)
    module.train().update(features, labels, momentum=0.1)
    assert relative_error(module.memory, arrays["memory_after"]) < 1e-6


@each_golden("memory", "forward_*.npz")
def test_memory_forward_is_the_authors(path):
    module, inputs, golden = golden_memory(path)
    with torch.no_grad():
        assert relative_error(module(*inputs), golden) < 1e-4


# --- whole segmentors -------------------------------------------------------------------------------------------------


@each_golden("models", "*.npz")
def test_logits_are_the_authors(path):
    segmentor, golden = published_segmentor(path)
    with torch.no_grad():
        output = segmentor.to(DEVICE)(unit("input", tuple(golden.meta["input_shape"])).to(DEVICE))
    assert relative_error(output.logits, golden.arrays["logits"]) < ROUNDING * 1e-3
    taps = {"decoder_stage1": output.coarse, "decoder_pr": output.coarse, "decoder_cwi": output.context}
    for name, logits in taps.items():
        if f"tap/{name}" in golden.arrays and logits is not None:
            assert relative_error(logits, golden.arrays[f"tap/{name}"]) < ROUNDING * 1e-3


def published_segmentor(path):
    """The segmentor of `params/<name>.yaml` with the golden's weights, and the golden."""
    golden = read_golden(path)
    config = load_benchmark(ROOT, path.stem, what_ran(golden.meta))
    with torch.device("meta"):
        segmentor = build_segmentor(config, golden.meta["num_classes"], pretrained=False)
    segmentor.load_state_dict(from_published(golden.state, segmentor.state_dict()), assign=True)
    return segmentor.eval(), golden


def what_ran(meta):
    """The choices that a golden records, whatever the benchmark's own default is, as an ablation."""
    activation = {"ReLU": "relu", "LeakyReLU": "leaky_relu"}[meta["act"]["type"]]
    ablation = {"segmentor": {"activation": activation}}
    if "aspp_dilations" in meta:
        ablation["segmentor"]["options"] = {"dilations": meta["aspp_dilations"]}
    if "stem_relu" in meta:
        ablation["encoder"] = {"options": {"stem_relu": meta["stem_relu"]}}
    return ablation


# --- parts of networks, of whose output a sample is stored ------------------------------------------------------------


class FixedMaps(torch.nn.Module):
    """In place of an encoder: the same maps for any image."""

    def __init__(self, maps):
        super().__init__()
        self.maps = maps

    def forward(self, images):
        return [images, *self.maps]


def varied(state):
    """`state` with norms and distribution memories that change something."""
    found = dict(state)
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var")):
            mean = key.endswith("mean")
            found[key] = (0.1 if mean else 0.3) * unit(key, tuple(value.shape)) + (not mean)
        elif key == "memory_module.memory":
            found[key] = 0.3 * unit(key, tuple(value.shape)) + torch.tensor([0.0, 1.0])
    return found


def sampled_error(ours, golden):
    """The golden has values at equal distances."""
    return relative_error(ours.flatten()[evenly_spaced(ours.numel(), len(golden))], golden)


@each_golden("networks", "*-*.npz")
def test_logits_of_heads_are_the_authors(path):
    golden = read_golden(path)
    with torch.device("meta"):
        segmentor = build_segmentor(load_benchmark(ROOT, path.stem), golden.meta["logits_shape"][1], pretrained=False)
    own = [key for key in segmentor.state_dict() if not key.startswith(("encoder.", "auxiliary."))]
    segmentor.load_state_dict(from_published(varied(golden.state), own), strict=False, assign=True)
    segmentor.encoder = FixedMaps([unit(f"map{i}", tuple(s)) for i, s in enumerate(golden.meta["map_shapes"])])
    with torch.no_grad():
        logits = segmentor.eval()(torch.zeros(1, 3, 8, 8)).logits
    assert list(logits.shape) == golden.meta["logits_shape"]
    assert sampled_error(logits, golden.arrays["logits"]) < 1e-4


@each_golden("networks", "swin_tiny.npz")
def test_swins_maps_of_a_size_that_needs_padding_are_the_authors(path):
    golden, encoder = read_golden(path), SwinEncoder(0.0, "swin_tiny_patch4_window7_224").eval()
    state = rename_backbone({key.removeprefix("backbone_net."): value for key, value in golden.state.items()})
    encoder.load_state_dict({f"model.{key}": value for key, value in state.items()})
    with torch.no_grad():
        maps = encoder(unit("input", tuple(golden.meta["input_shape"])))[1:]
    assert [list(m.shape) for m in maps] == golden.meta["shapes"]
    for index, found in enumerate(maps):
        assert sampled_error(found, golden.arrays[f"map{index}"]) < 1e-4


# --- training ---------------------------------------------------------------------------------------------------------


# Half a minute each; the quick one has a memory that is filled already, and rounding grows least.
SLOW_TRAININGS = {"resnet50_ade20k", "plusplus_aspp_resnet50"}


@each_golden("training", "*.npz", slow=SLOW_TRAININGS)
def test_training_steps_are_the_authors(path, many_threads):
    """The first two steps are held tightly, the last two loosely.

    The network is random and the first gradients are large, so rounding grows a thousandfold per step: noise of 1e-7
    on the weights moves the losses of the third step by up to 7 %, the number of threads by as much.
    """
    for step, golden, values, memory, arrays in golden_steps(path, torch.float32):
        assert values["lr"] == pytest.approx(golden["lr"], rel=1e-9)
        tolerance = ROUNDING * 1e-3 if step < TIGHT_STEPS else 0.2
        assert values["loss"] == pytest.approx(golden["loss"], rel=tolerance)
        for term, expected in by_our_terms(golden["losses"]).items():
            assert values[f"loss_{term}"] == pytest.approx(expected, rel=tolerance), (step, term)
        if step == 0:
            assert values["grad_norm"] == pytest.approx(golden["grad_norm"], rel=ROUNDING * 1e-3)
            assert relative_error(memory, arrays["memory0"]) < ROUNDING * 1e-4


@pytest.mark.slow
@each_golden("training64", "*.npz")
def test_training_steps_in_float64_are_the_authors_to_rounding(path):
    """Every loss term of all four steps to 1e-7; gradient norm and memory of the first three to 1e-7 and 1e-6.

    The last step's are held to 1e-5: errors grow a thousandfold per step. Noise of 1e-16 on the weights of
    resnet50_ade20k_warm moves the last gradient norm by 2e-4.
    """
    for step, golden, values, memory, arrays in golden_steps(path, torch.float64):
        for term, loss in by_our_terms(golden["losses"]).items():
            assert values[f"loss_{term}"] == pytest.approx(loss, rel=ROUNDING * 1e-7), (step, term)
        norm_tolerance, memory_tolerance = (1e-7, 1e-6) if f"memory{step + 1}" in arrays else (LAST_NORM, 1e-5)
        assert values["grad_norm"] == pytest.approx(golden["grad_norm"], rel=ROUNDING * norm_tolerance), step
        assert relative_error(memory, arrays[f"memory{step}"]) < ROUNDING * memory_tolerance, step


def golden_steps(path, dtype):
    """Train as the golden did; per step its number, the golden's entry, our values, our memory, the golden's arrays."""
    meta, arrays, _ = read_golden(path)
    log, norms = (json.loads(arrays[name].tobytes()) for name in ("log", "final_norms"))
    trainer = golden_trainer(meta, norms)
    trainer.model.to(dtype)
    if isinstance(trainer.model.memory, DistributionMemory):  # the authors draw in the precision of the network
        trainer.model.memory.codes = class_codes(*trainer.model.memory.codes.shape, dtype=dtype).to(DEVICE)
    for step, golden in enumerate(log):
        images, labels = golden_batch(meta, step)
        part = images.to(DEVICE, dtype), labels.to(DEVICE)
        values = training_step(trainer, [part], step, step // meta["iters_per_epoch"] + 1)
        yield step, golden, {name: float(value) for name, value in values.items()}, trainer.model.memory.memory, arrays


def by_our_terms(losses):
    """Their losses under our names; those of all auxiliary heads are one term here."""
    terms = {TERMS[name]: loss for name, loss in losses.items() if name in TERMS}
    auxiliary = [loss for name, loss in losses.items() if name.startswith("loss_aux")]
    return terms | ({"auxiliary": sum(auxiliary)} if auxiliary else {})


def golden_trainer(meta, norms):
    """Model by recipe, dropout off, the schedule of the golden's few iterations."""
    changes = {
        "segmentor": {"dropout": 0.0},
        **({"encoder": {"options": {"drop_path": 0.0}}} if "swin" in meta["benchmark"] else {}),
        "schedule": {"epochs": meta["epochs"], "batch_size": meta["batch"]},
        "optimizer": {name: meta["optimizer"][name] for name in ("lr", "weight_decay")},
    }
    config = load_benchmark(ROOT, meta["benchmark"], changes)
    model = build_segmentor(config, meta["num_classes"], pretrained=False)
    state = model.state_dict()
    initial = state["memory.memory"].clone()
    counted = [key for key in state if not key.endswith("num_batches_tracked")]
    names = [key for key in norms if not key.endswith("num_batches_tracked")]
    # A tensor that holds its own place among the names finds the key, and thereby the shape, of each.
    places = from_published({name: torch.full((4,), place) for place, name in enumerate(names)}, counted)
    shapes = {names[int(place[0])]: tuple(state[key].shape) for key, place in places.items()}
    state |= from_published({name: weight(name, shape) for name, shape in shapes.items()}, counted)
    if meta.get("memory") == "zeros" or "memory starts at zeros" in meta["note"]:
        state["memory.memory"] = initial  # zeros; of a distribution memory mean 0 and deviation 1
    model.load_state_dict(state)
    return trainer_of(config, model.train().to(DEVICE), total=meta["epochs"] * meta["iters_per_epoch"], device=DEVICE)


def golden_batch(meta, step):
    size, batch = tuple(meta["size"]), meta["batch"]
    images = 0.7 * unit(f"train/{step}", (batch, 3, *size)) + 0.5 * unit(f"train/{step}/o", (batch, 3, 1, 1))
    return images, blocky_labels(f"train/labels{step}", (batch, *size), meta["num_classes"], 16, 0.05)


@pytest.fixture
def many_threads():
    """Sums over many short parts, as on the machine of the goldens: the closest that was found to its order."""
    before = torch.get_num_threads()
    torch.set_num_threads(28)
    yield
    torch.set_num_threads(before)


# --- from the picture to the label map --------------------------------------------------------------------------------

# Cityscapes' pictures are large; LIP's cover the same road quickly.
SLOW = {("cityscapes-resnet50os8", "tta"), ("cityscapes-resnet50os8", "single")}


def each_label_map():
    """A golden's path and the protocols that share its forward passes, the slow ones apart."""
    cases = []
    for path in sorted(path for folder in GOLDENS for path in (folder / "e2e").glob("*.json")):
        names = list(read_json(path)["results"])
        slow = [name for name in names if (path.stem, name) in SLOW]
        if quick := [name for name in names if name not in slow]:
            cases.append(pytest.param(path, quick, id=path.stem))
        cases += [pytest.param(path, [name], id=f"{path.stem}-{name}", marks=pytest.mark.slow) for name in slow]
    return cases or [pytest.param(None, None, marks=pytest.mark.skip(reason="no e2e goldens on this machine"))]


def read_json(path):
    return json.loads(path.read_text())


@pytest.mark.parametrize(("path", "names"), each_label_map())
def test_label_maps_of_real_pictures_are_the_authors(path, names):
    golden = read_json(path)
    weights = path.parents[1] / "models" / f"{golden['benchmark']}.npz"
    spec = get_dataset(golden["dataset"])
    segmentor, _ = published_segmentor(weights)
    transform = EvalTransform(load_benchmark(ROOT, golden["benchmark"]).inference.resize)
    protocols = {name: as_protocol(golden["results"][name]["inference"]) for name in names}
    for file in golden["files"]:
        image = read_image(picture(file))
        with torch.inference_mode():
            images = transform(image)[None].to(DEVICE)
            maps = predict(segmentor.to(DEVICE), images, protocols, image.shape[:2], spec.flip_pairs)
        for name, found in maps.items():
            label_map = str(path.parent / f"{path.stem}__{name}__{Path(file).stem}.png")
            expected = cv2.imread(label_map, cv2.IMREAD_GRAYSCALE)
            assert np.mean(found[0].cpu().numpy() == expected) > 0.995, (file, name)


def picture(file):
    found = sorted(SAMPLES.rglob(Path(file).name))
    if not found:
        pytest.skip(f"no {file} under SAMPLES")
    return found[0]


def as_protocol(inference):
    forward, tta = inference["forward"], inference["tta"]
    window = {"crop": forward["cropsize"], "stride": forward["stride"]} if forward["mode"] == "slide" else {}
    return ProtocolConfig(
        mode=forward["mode"],
        scales=tta["multiscale"],
        flip=tta["flip"],
        average="probabilities" if tta["use_probs_before_resize"] else "logits",
        **window,
    )
