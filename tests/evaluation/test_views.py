"""Label maps from views: every rule against a small independent computation."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from helpers.model_benchmarks import Strided
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.schema import ProtocolConfig
from pipeline.evaluation import averaging
from pipeline.evaluation.averaging import Whole, label_map, resized_rows
from pipeline.evaluation.views import predict

SINGLE = ProtocolConfig()


@pytest.fixture
def model() -> Strided:
    return Strided().eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(1, 3, 37, 50, generator=torch.Generator().manual_seed(1))


def up(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


@torch.inference_mode()
def test_whole_goes_from_feature_resolution_straight_to_the_original_size(model: Strided, image: Tensor) -> None:
    found = predict(model, image, {"s": SINGLE}, (61, 83))["s"]
    assert torch.equal(found, up(model(image).logits, (61, 83)).argmax(1))


@torch.inference_mode()
def test_scales_average_probabilities_taken_at_feature_resolution(model: Strided, image: Tensor) -> None:
    protocol = ProtocolConfig(scales=(0.5, 1.0, 1.75), average="probabilities")
    expected = torch.zeros(1, 5, 37, 50)
    for scale in protocol.scales:
        scaled = F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
        assert scaled.shape[-2:] == (int(37 * scale), int(50 * scale))
        expected += up(model(scaled).logits.softmax(1), (37, 50))
    assert torch.equal(predict(model, image, {"s": protocol}, (37, 50))["s"], expected.argmax(1))


@torch.inference_mode()
def test_flip_averages_both_orientations_and_swaps_left_and_right(model: Strided, image: Tensor) -> None:
    protocol = ProtocolConfig(flip=True)
    mirrored = model(image.flip(-1)).logits[:, [0, 2, 1, 3, 4]].flip(-1)
    expected = up(model(image).logits, (37, 50)) + up(mirrored, (37, 50))
    found = predict(model, image, {"s": protocol}, (37, 50), flip_pairs=((1, 2),))["s"]
    assert torch.equal(found, expected.argmax(1))


@torch.inference_mode()
@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_windows_end_at_the_border_and_divide_by_their_number(model: Strided, image: Tensor, average: str) -> None:
    protocol = ProtocolConfig(mode="slide", crop=(24, 32), stride=(16, 16), average=average)
    total, count = torch.zeros(1, 5, 37, 50), torch.zeros(1, 1, 37, 50)
    for top in (0, 13):  # 37 = 24 + 13
        for left in (0, 16, 18):  # 50 = 32 + 18
            maps = up(model(image[..., top : top + 24, left : left + 32]).logits, (24, 32))
            total[..., top : top + 24, left : left + 32] += maps.softmax(1) if average == "probabilities" else maps
            count[..., top : top + 24, left : left + 32] += 1
    found = predict(model, image, {"s": protocol}, (37, 50))["s"]
    assert torch.equal(found, (total / count).argmax(1))


@torch.inference_mode()
def test_window_larger_than_the_image_is_the_image(model: Strided, image: Tensor) -> None:
    protocol = ProtocolConfig(mode="slide", crop=(64, 32), stride=(64, 32))
    predict(model, image, {"s": protocol}, (37, 50))
    assert {call[-2:] for call in model.calls} == {(37, 32)}


@torch.inference_mode()
def test_protocols_asked_together_equal_protocols_asked_alone(model: Strided, image: Tensor) -> None:
    protocols = {
        "single": SINGLE,
        "ms": ProtocolConfig(scales=(0.5, 1.0), flip=True, average="probabilities"),
        "slide": ProtocolConfig(mode="slide", crop=(24, 24), stride=(16, 16)),
    }
    together = predict(model, image, protocols, (37, 50))
    for name, protocol in protocols.items():
        assert torch.equal(together[name], predict(model, image, {name: protocol}, (37, 50))[name])


@torch.inference_mode()
def test_shared_views_run_once_and_mirror_images_in_one_batch(model: Strided, image: Tensor) -> None:
    protocols = {"single": SINGLE, "ms": ProtocolConfig(scales=(0.5, 1.0), flip=True, average="probabilities")}
    predict(model, image, protocols, (37, 50))
    assert sorted(call[0] for call in model.calls) == [2, 2]


@torch.inference_mode()
def test_a_batch_equals_its_images_one_by_one(model: Strided) -> None:
    images = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(2))
    protocol = {"ms": ProtocolConfig(scales=(0.75, 1.0), flip=True, average="probabilities")}
    together = predict(model, images, protocol, (40, 40))["ms"]
    for i in range(3):
        assert torch.equal(together[i], predict(model, images[i : i + 1], protocol, (40, 40))["ms"][0])


@torch.inference_mode()
def test_windows_share_forward_passes_as_far_as_they_fit(
    model: Strided, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocols = {"s": ProtocolConfig(mode="slide", crop=(24, 32), stride=(16, 16), flip=True)}
    together = predict(model, image, protocols, (37, 50))["s"]
    monkeypatch.setattr("pipeline.evaluation.views._WINDOW_PIXELS", 4 * 2 * 24 * 32)
    assert torch.equal(predict(model, image, protocols, (37, 50))["s"], together)
    assert [call[0] for call in model.calls] == [12, 8, 4]  # six windows, each with its mirror image; then apart


# --- row bands --------------------------------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("size", [(61, 83), (9, 83), (12, 7), (5, 6), (1, 1)], ids=str)
def test_rows_of_a_resize_are_those_of_the_whole_resize(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 9, 11, 5, generator=torch.Generator().manual_seed(3))
    whole = up(maps.movedim(-1, 1), size).movedim(1, -1)
    for start in range(0, size[0], 4):
        stop = min(start + 4, size[0])
        torch.testing.assert_close(resized_rows(Whole(maps), size, start, stop), whole[:, start:stop])


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_the_height_of_a_band_has_no_influence(
    model: Strided, image: Tensor, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = {"crop": (24, 32), "stride": (16, 16)} if mode == "slide" else {}
    protocols = {"s": ProtocolConfig(mode=mode, scales=(0.75, 1.0, 1.5), flip=True, average="probabilities", **window)}
    in_one_band = predict(model, image, protocols, (61, 83))["s"]
    for values in (5 * 83 * 7, 1):  # seven rows, one row
        monkeypatch.setattr(averaging, "_BAND_VALUES", values)
        assert torch.equal(predict(model, image, protocols, (61, 83))["s"], in_one_band)


@torch.inference_mode()
def test_large_maps_of_many_classes_give_the_labels_of_the_full_average() -> None:
    views = [torch.rand(1, h, w, 182, generator=torch.Generator().manual_seed(h)) for h, w in ((16, 64), (28, 112))]
    found = label_map([Whole(view) for view in views], (128, 512))
    expected = sum(up(view.movedim(-1, 1), (128, 512)) for view in views).argmax(1)
    assert torch.equal(found, expected)


class Twice(Strided):
    """Adds what an earlier pass gave to its own logits."""

    def forward(self, images: Tensor, earlier: Tensor | None = None, cascade: str = "mean") -> SimpleNamespace:
        logits = super().forward(images).logits
        assert cascade == "authors" or earlier is None
        return SimpleNamespace(logits=logits if earlier is None else logits + 9 * up(earlier, logits.shape[2:]))


@torch.inference_mode()
def test_a_cascade_gives_every_view_the_average_of_the_first_pass_mirrored_where_it_is(image: Tensor) -> None:
    model, pairs = Twice().eval(), ((1, 2),)
    protocol = ProtocolConfig(scales=(0.5, 1.0), flip=True, average="probabilities")

    def views(earlier: Tensor | None) -> list[Tensor]:
        swap = [0, 2, 1, 3, 4]
        mirrored = None if earlier is None else earlier.flip(-1)[:, swap]
        found = []
        for scale in protocol.scales:
            scaled = F.interpolate(image, scale_factor=scale, mode="bilinear") if scale != 1 else image
            found.append(model(scaled, earlier, "authors").logits.softmax(1))
            found.append(model(scaled.flip(-1), mirrored, "authors").logits.softmax(1).flip(-1)[:, swap])
        return found

    first = views(None)
    average = torch.stack([up(view, first[-1].shape[2:]) for view in first]).mean(0)
    expected = torch.stack([up(view, (37, 50)) for view in views(average)]).mean(0).argmax(1)
    found = predict(model, image, {"s": protocol}, (37, 50), pairs, "authors")["s"]
    assert torch.equal(found, expected)
    assert not torch.equal(found, predict(model, image, {"s": protocol}, (37, 50), pairs)["s"])
