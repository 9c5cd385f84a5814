"""The feature memory: what an update does to it, what a forward pass reads from it."""

import pytest
import torch
from helpers import dense_memory
from helpers.tensors import after_update, features, random_labels

from pipeline.datasets.spec import IGNORE_INDEX
from pipeline.errors import PipelineError
from pipeline.models import FeatureMemory

CHANNELS = 6


def memory_module(num_classes=4, **options):
    torch.manual_seed(0)
    return FeatureMemory(num_classes, channels=CHANNELS, attention_channels=4, **options)


# --- update: equal to the dense algorithm -----------------------------------------------------------------------------

SIZES = {
    "multiple": ((4, 6), (32, 48)),
    "odd": ((5, 7), (33, 45)),
    "non-integer ratio": ((6, 9), (41, 50)),
    "same size": ((8, 8), (8, 8)),
    "one row": ((1, 5), (7, 21)),
    "one column": ((5, 1), (21, 7)),
    "one pixel": ((1, 1), (9, 9)),
    "label map smaller than features": ((16, 12), (9, 7)),
}


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("strategy", "slots"), [("cosine", 1), ("cosine", 2), ("cosine", 3), ("mean", 1)], ids=str)
def test_low_resolution_update_equals_the_dense_one(size, strategy, slots):
    low, full = SIZES[size]
    num_classes = 5
    memory = torch.zeros(num_classes, slots, CHANNELS)
    for step in range(slots + 2):  # the first steps fill the slots, the last ones blend
        representations = features(2, CHANNELS, *low, seed=step)
        labels = random_labels((2, *full), num_classes, seed=step)
        expected = dense_memory.dense_update(memory, representations, labels, 0.6, strategy)
        memory = after_update(memory, representations, labels, 0.6, strategy)
        torch.testing.assert_close(memory, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_in_two_parts_gives_the_memory_of_the_whole():
    module = memory_module(slots=2).train()
    module.memory = before = features(4, 2, CHANNELS, seed=1) + 0.1
    representations, labels = features(4, CHANNELS, 5, 5), random_labels((4, 20, 20), 4)
    module.update_from([module.statistics(representations[i : i + 2], labels[i : i + 2]) for i in (0, 2)], 0.9)
    torch.testing.assert_close(module.memory, after_update(before, representations, labels, 0.9, "cosine"))


def test_a_float64_network_has_a_float64_memory_and_update():
    memory = features(4, 1, CHANNELS, seed=1).double() + 0.1
    representations, labels = features(2, CHANNELS, 5, 7).double(), random_labels((2, 33, 45), 4)
    found = after_update(memory, representations, labels, 0.9, "cosine")
    expected = dense_memory.dense_update(memory, representations, labels, 0.9, "cosine")
    assert found.dtype == memory_module().double().memory.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


# --- update: rules ----------------------------------------------------------------------------------------------------


def test_first_touch_stores_the_plain_mean_and_fills_one_slot_per_update():
    representations, labels = features(1, CHANNELS, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    memory = torch.zeros(2, 3, CHANNELS)
    for filled in (1, 2, 3):
        memory = after_update(memory, representations, labels, 0.01, "cosine")
        torch.testing.assert_close(memory[0, filled - 1], representations.mean(dim=(0, 2, 3)))
        assert (memory != 0).any(dim=-1).sum() == filled


def test_classes_absent_from_the_batch_keep_their_memory():
    memory = features(3, 1, CHANNELS) + 0.1
    labels = torch.full((1, 8, 8), 1)
    updated = after_update(memory, features(1, CHANNELS, 4, 4, seed=3), labels, 0.9, "cosine")
    assert torch.equal(updated[[0, 2]], memory[[0, 2]])
    assert not torch.equal(updated[1], memory[1])


def test_ignored_pixels_do_not_count():
    memory = features(1, 1, CHANNELS) + 0.1
    representations = features(2, CHANNELS, 8, 8)
    labels = torch.zeros(2, 8, 8, dtype=torch.int64)
    labels[1] = IGNORE_INDEX
    both = after_update(memory, representations, labels, 0.9, "cosine")
    torch.testing.assert_close(both, after_update(memory, representations[:1], labels[:1], 0.9, "cosine"))
    assert torch.equal(after_update(memory, representations[1:], labels[1:], 1.0, "cosine"), memory)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.7])
def test_pixels_identical_to_the_memory_or_zero_give_their_mean_and_not_nan(scale):
    memory = features(1, 1, CHANNELS) + 0.1
    representations = (scale * memory[0, 0])[None, :, None, None].expand(1, -1, 4, 4)
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    updated = after_update(memory, representations, labels, 1.0, "cosine")
    torch.testing.assert_close(updated, scale * memory)


def test_dissimilar_pixels_weigh_more_with_cosine_and_equally_with_mean():
    memory = torch.tensor([[[1.0, 0.0]]])
    pixels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).T.reshape(1, 2, 1, 2)  # one like the memory, one orthogonal
    labels = torch.zeros(1, 1, 2, dtype=torch.int64)
    cosine = after_update(memory, pixels, labels, 1.0, "cosine")
    mean = after_update(memory, pixels, labels, 1.0, "mean")
    torch.testing.assert_close(cosine, torch.tensor([[[0.0, 1.0]]]))
    torch.testing.assert_close(mean, torch.tensor([[[0.5, 0.5]]]))


@pytest.mark.parametrize("stray", [4, -1, 200, -100])
def test_a_label_that_is_neither_class_nor_ignored_is_an_error(stray):
    labels = random_labels((1, 8, 8), 4)
    labels[0, 0, 0] = stray
    with pytest.raises(RuntimeError, match=r"a label is neither one of 0..3 nor 255 \(ignore\)"):
        after_update(torch.zeros(4, 1, CHANNELS), features(1, CHANNELS, 4, 4), labels, 0.9, "cosine")


def test_half_precision_features_are_pooled_in_float32():
    memory = features(4, 1, CHANNELS) + 0.1
    representations, labels = features(1, CHANNELS, 4, 4).bfloat16(), random_labels((1, 16, 16), 4)
    expected = after_update(memory, representations.float(), labels, 0.9, "cosine")
    with torch.autocast("cpu", torch.bfloat16):
        updated = after_update(memory, representations, labels, 0.9, "cosine")
    assert updated.dtype == torch.float32
    assert torch.equal(updated, expected)


# --- the module -------------------------------------------------------------------------------------------------------


def test_the_memory_is_a_buffer_of_zeros_and_travels_with_the_state_dict():
    source, target = memory_module(slots=2).train(), memory_module(slots=2)
    assert source.memory.shape == (4, 2, CHANNELS)
    assert not source.memory.any()
    assert "memory" not in dict(source.named_parameters())
    source.update(features(1, CHANNELS, 4, 4), random_labels((1, 16, 16), 4), momentum=0.9)
    target.load_state_dict(source.state_dict())
    assert target.memory.any()
    assert torch.equal(target.memory, source.memory)


def test_misuse_is_an_error():
    with pytest.raises(RuntimeError, match="frozen in evaluation"):
        memory_module().eval().update(features(1, CHANNELS, 4, 4), random_labels((1, 16, 16), 4), 0.9)
    with pytest.raises(PipelineError, match=r"memory.slots"):
        memory_module(slots=2, strategy="mean")
    with pytest.raises(ValueError, match="context"):
        memory_module(fuse_context=True)(features(1, CHANNELS, 4, 4), torch.randn(1, 4, 4, 4))


def test_an_update_between_forward_and_backward_does_not_disturb_the_gradient():
    def gradient(update):
        module = memory_module(fuse_context=False).train()
        module.memory = features(4, 1, CHANNELS, seed=1)
        representations = features(2, CHANNELS, 4, 4)
        coarse = torch.zeros(2, 4, 4, 4, requires_grad=True)
        out = module(representations, coarse)
        if update:
            module.update(representations, random_labels((2, 16, 16), 4), momentum=0.9)
        out.square().sum().backward()
        return coarse.grad

    assert torch.equal(gradient(update=True), gradient(update=False))


def test_the_gradient_can_be_that_of_the_memory_after_the_update_as_in_the_authors_code():
    """They overwrite the memory in place between the forward and the backward pass."""

    def coarse_gradient(read, at_backward, **options):
        module = memory_module(fuse_context=False, **options).train()
        module.memory = read
        logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
        mixed = module._retrieve(module.class_weights(logits), 0, features(2, CHANNELS, 3, 3))  # (B, C, h, w)
        module.memory = at_backward
        mixed.square().sum().backward()
        return mixed.detach(), logits.grad

    before, after = (torch.rand(4, 1, CHANNELS, generator=torch.Generator().manual_seed(seed)) for seed in (2, 3))
    exact, updated = (coarse_gradient(before, after, gradient=kind) for kind in ("exact", "updated"))
    unchanged = coarse_gradient(before, before, gradient="updated")
    assert torch.equal(exact[0], updated[0])  # the forward pass reads the memory before the update either way
    torch.testing.assert_close(exact[1], unchanged[1])
    assert not torch.allclose(exact[1], updated[1], rtol=0.05)


def test_a_random_memory_is_there_from_the_start_and_positive_as_representations_are():
    module = memory_module(content="random")
    assert (module.memory >= 0).all()
    assert module.memory.any(dim=-1).all()  # no slot that counts as unwritten
    assert not module.learns


def test_class_means_of_the_batch_are_those_of_the_pixels_that_the_coarse_logits_point_at():
    module = memory_module(content="batch", aggregation="hard").train()
    pixels = features(2, CHANNELS, 3, 3).requires_grad_()  # (B, C, h, w)
    classes = torch.arange(18).reshape(2, 3, 3) % 4
    weights = torch.nn.functional.one_hot(classes, 4).movedim(-1, 1).float()  # (B, K, h, w)
    read = module._retrieve(weights, 0, pixels)
    assert not read.requires_grad  # as the memory takes none
    for k in range(4):
        mean = pixels.detach().movedim(1, -1)[classes == k].mean(dim=0)  # (C,)
        torch.testing.assert_close(read.movedim(1, -1)[classes == k], mean.expand((classes == k).sum(), -1))


def test_class_means_of_the_batch_do_not_mix_images_in_evaluation():
    module = memory_module(content="batch").eval()
    pixels, coarse = features(2, CHANNELS, 4, 4), torch.randn(2, 4, 4, 4)
    context = features(2, CHANNELS, 4, 4, seed=1)
    with torch.no_grad():
        together = module(pixels, coarse, context)
        alone = module(pixels[1:], coarse[1:], context[1:])
    torch.testing.assert_close(together[1:], alone)


def test_fusions_read_pixels_before_memory_and_image_context_before_the_result():
    """With the order exchanged, weights load all the same."""
    module = memory_module().eval()
    seen = {}
    for name in ("memory_fusion", "context_fusion", "context_attention"):
        getattr(module, name).register_forward_hook(
            lambda _, given, made, name=name: seen.update({name: (given, made)})
        )
    pixels = features(1, CHANNELS, 4, 4)
    module(pixels, torch.randn(1, 4, 4, 4), features(1, CHANNELS, 4, 4, seed=1))
    assert torch.equal(seen["memory_fusion"][0][0][:, :CHANNELS], pixels)
    first, second = seen["context_fusion"][0][0].chunk(2, dim=1)
    assert torch.equal(first, seen["context_attention"][1])
    assert torch.equal(second, seen["memory_fusion"][1])


def test_direct_fusion_reads_the_context_itself():
    module = memory_module(fusion="direct").eval()
    pixels, coarse, context = features(1, CHANNELS, 4, 4), torch.randn(1, 4, 4, 4), features(1, CHANNELS, 4, 4, seed=1)
    seen = []
    module.context_fusion.register_forward_hook(lambda _, given, made: seen.append(given[0]))
    module(pixels, coarse, context)
    assert module.context_attention is None
    assert torch.equal(seen[0][:, :CHANNELS], context)


@pytest.mark.parametrize("fuse_context", [True, False])
def test_residual_fusion_adds_to_what_the_network_without_memory_has_and_starts_with_nothing(fuse_context):
    module = memory_module(fusion="residual", fuse_context=fuse_context).train()
    pixels, coarse = features(2, CHANNELS, 4, 4), torch.randn(2, 4, 4, 4)
    context = features(2, CHANNELS, 4, 4, seed=1) if fuse_context else None
    plain = context if fuse_context else pixels
    assert torch.equal(module(pixels, coarse, context), plain)
    module(pixels, coarse, context).square().sum().backward()
    assert module.gain.grad != 0  # so that it does not stay there
    module.gain.data.fill_(2.0)
    augmented = []
    module.memory_fusion.register_forward_hook(lambda _, given, made: augmented.append(made))
    found = module(pixels, coarse, context)
    torch.testing.assert_close(found, plain + 2 * augmented[0])


@pytest.mark.parametrize("fusion", ["attention", "direct", "residual"])
def test_without_content_the_module_has_its_convolutions_and_reads_nothing(fusion):
    module = memory_module(content="none", fusion=fusion).eval()
    pixels, context = features(1, CHANNELS, 4, 4), features(1, CHANNELS, 4, 4, seed=1)
    first = module(pixels, torch.randn(1, 4, 4, 4), context)
    module.memory = features(4, 1, CHANNELS, seed=1)
    assert torch.equal(module(pixels, torch.randn(1, 4, 4, 4), context), first)
    assert len(module.memory_attention) == 0
    assert module.memory_fusion[0].weight.shape == memory_module().memory_fusion[0].weight.shape
    assert not module.learns


def test_soft_aggregation_passes_gradient_to_the_coarse_logits_and_never_to_the_memory():
    module = memory_module(fuse_context=False).train()
    module.memory = features(4, 1, CHANNELS, seed=1)
    coarse = torch.zeros(2, 4, 4, 4, requires_grad=True)
    module(features(2, CHANNELS, 4, 4), coarse).square().sum().backward()
    assert coarse.grad.abs().sum() > 0
    assert not module.memory.requires_grad


def test_soft_weights_are_the_class_softmax_and_hard_weights_its_argmax():
    logits = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    soft, hard = (memory_module(aggregation=kind).class_weights(logits) for kind in ("soft", "hard"))
    torch.testing.assert_close(soft, logits.softmax(dim=1))
    assert torch.equal(hard.argmax(dim=1), logits.argmax(dim=1))
    assert torch.equal(hard.sum(dim=1), torch.ones(2, 3, 3))


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("fuse_context", [True, False])
def test_forward_keeps_the_shape_of_the_representations(slots, fuse_context):
    module = memory_module(slots=slots, fuse_context=fuse_context)
    representations = features(2, CHANNELS, 5, 7)
    context = features(2, CHANNELS, 5, 7) if fuse_context else None
    assert module(representations, torch.randn(2, 4, 5, 7), context).shape == (2, CHANNELS, 5, 7)
