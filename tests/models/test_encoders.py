"""Encoders: depth, stride, weights, and what is said when a configuration asks for the impossible."""

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from timm.models.swin_transformer import PatchMerging
from torch import nn

from pipeline.checkpoints.key_names import rename_backbone
from pipeline.checkpoints.read import read_state_dict
from pipeline.config.schema import EncoderConfig
from pipeline.errors import PipelineError
from pipeline.models.encoder import build_encoder
from pipeline.models.encoder_weights import lite0_to_timm, packaged_lite0_file
from pipeline.models.encoders.swin_large import SwinEncoder


def encoder(name="tu-mobilenetv3_small_050", pretrained=True, **config):
    return build_encoder(EncoderConfig(name=name, **config), pretrained)


def maps(model):
    with torch.no_grad():
        return model.eval()(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("name", ["tu-resnet18", "resnet18", "tu-tf_efficientnet_lite0", "mit_b0"])
def test_maps_have_the_announced_widths_and_halve_in_size(name):
    model = encoder(name)
    found = maps(model)
    assert [feature.shape[1] for feature in found] == list(model.out_channels)
    assert [feature.shape[2] for feature in found] == [64, 32, 16, 8, 4, 2]


@pytest.mark.parametrize("stride", [8, 16])
def test_output_stride_dilates_instead_of_striding(stride):
    assert maps(encoder("tu-resnet18", output_stride=stride))[-1].shape[2] == 64 // stride


def test_resnet_dilates_the_first_block_of_a_stage_by_half():
    stages = encoder("tu-resnet50c", output_stride=8).model
    dilation = [[block.conv2.dilation[0] for block in stage] for stage in (stages.layer3, stages.layer4)]
    assert dilation == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]


def test_depth_cuts_the_encoder_and_its_parameters():
    deep, shallow = encoder("tu-tf_efficientnet_lite0"), encoder("tu-tf_efficientnet_lite0", depth=3)
    assert maps(shallow)[-1].shape[1:] == (40, 8, 8)
    assert sum(p.numel() for p in shallow.parameters()) < 0.1 * sum(p.numel() for p in deep.parameters())


DILATED = ("densenet121", "tu-densenet121", "tu-swin_tiny_patch4_window7_224", "tu-hrnet_w18")
IMPOSSIBLE = [
    *((name, 5, 8, rf"output_stride: {name} cannot be built at stride 8.*tu-resnet50c.*null") for name in DILATED),
    ("tu-swin_tiny_patch4_window7_224", 4, None, "cannot be cut or dilated: .*tu-resnet50c.*224"),
    ("tu-resnet18", 3, 16, "with depth 3 ends at stride 8, not 16; set output_stride to 8"),
    ("tu-vit_base_patch16_224", 5, None, "tu-vit_base_patch16_224 gives no pyramid"),
    ("resnet5O", 5, None, "did you mean `resnet50`"),
    ("tu-resnet50cc", 5, None, "did you mean `tu-resnet50c`"),
]


@pytest.mark.parametrize(("name", "depth", "stride", "message"), IMPOSSIBLE)
def test_an_encoder_that_cannot_be_built_names_another(name, depth, stride, message):
    with pytest.raises(PipelineError, match=message):
        encoder(name, depth=depth, output_stride=stride)


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0_classifier():
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.load_state_dict(lite0_to_timm(read_state_dict(packaged_lite0_file())), strict=True)
    return model.eval()


@pytest.mark.parametrize(("picture", "imagenet_class"), [("china.jpg", 698), ("flower.jpg", 985)])
def test_packaged_weights_recognise_a_palace_and_a_daisy(lite0_classifier, picture, imagenet_class):
    image = torch.from_numpy(np.array(load_sample_image(picture))).permute(2, 0, 1)[None].float()
    height, width = image.shape[2:]
    image = F.interpolate(image, (256, 256 * width // height), mode="bicubic", antialias=True)
    left = (image.shape[3] - 224) // 2
    image = image[:, :, 16:240, left : left + 224]
    with torch.no_grad():  # these weights were trained on (x - 127) / 128
        assert lite0_classifier((image - 127) / 128).argmax() == imagenet_class


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("name", ["tu-resnet18", "tu-regnety_002"])  # timm renames the stages of the second
def test_file_weights_of_a_timm_classifier_load_strictly(tmp_path, name, suffix):
    classifier = timm.create_model(name.removeprefix("tu-"), pretrained=False)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": classifier.state_dict(), "epoch": 3}, path)
    else:
        save_file(classifier.state_dict(), path)
    model = encoder(name, weights=f"file:{path}", depth=3)
    stem = next(iter(classifier.state_dict().values()))
    assert torch.equal(next(iter(model.state_dict().values())), stem)


def test_the_authors_imagenet_files_are_renamed(tmp_path):
    timm_keys = timm.create_model("resnet50c", pretrained=False).state_dict()
    theirs = {}
    for key, value in timm_keys.items():
        key = f"stem.{key.removeprefix('conv1.')}" if key.startswith("conv1.") else key
        key = f"stem.7.{key.removeprefix('bn1.')}" if key.startswith("bn1.") else key
        if not key.endswith("num_batches_tracked"):  # absent from old files
            theirs[key] = value
    torch.save(theirs, tmp_path / "resnet50_v1c.pth")
    model = encoder("tu-resnet50c", weights=f"file:{tmp_path / 'resnet50_v1c.pth'}", output_stride=8)
    assert torch.equal(model.model.bn1.weight, timm_keys["bn1.weight"])
    assert torch.equal(model.model.conv1[6].weight, timm_keys["conv1.6.weight"])


def test_file_weights_of_another_architecture_are_refused(tmp_path):
    save_file(timm.create_model("resnet34", pretrained=False).state_dict(), tmp_path / "r34.safetensors")
    with pytest.raises(PipelineError, match=r"does not fit tu-resnet18: 0 keys missing .* unknown"):
        encoder("tu-resnet18", weights=f"file:{tmp_path / 'r34.safetensors'}")
    with pytest.raises(PipelineError, match="does not fit resnet18"):
        encoder("resnet18", weights=f"file:{tmp_path / 'r34.safetensors'}")


def test_a_missing_weight_file_is_named_even_on_the_meta_device():
    with pytest.raises(PipelineError, match=r"nowhere.pth: no such weight file"):
        encoder(weights="file:nowhere.pth")
    with torch.device("meta"), pytest.raises(PipelineError, match=r"nowhere.pth: no such file"):
        encoder(weights="file:nowhere.pth")


@pytest.mark.parametrize("name", ["tu-resnet18", "resnet18"])
def test_without_network_a_pretrained_tag_says_which_file_to_fetch(name, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PipelineError, match=rf"'imagenet' for {name} could not be loaded .*resnet18.*file:PATH"):
        encoder(name, weights="imagenet")


def test_an_unknown_pretrained_tag_lists_the_known_ones():
    with pytest.raises(PipelineError, match=r"Available options are: \['imagenet'.*choose another or set"):
        encoder("resnet18", weights="imagenet22k")


def test_parameters_that_no_map_depends_on_wait_for_no_gradient():
    model = encoder("resnet18", pretrained=False, depth=3)  # smp keeps the stages after the third
    assert not any(parameter.requires_grad for parameter in model.layer4.parameters())
    assert all(parameter.requires_grad for parameter in model.layer2.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


# --- Swin -------------------------------------------------------------------------------------------------------------

TINY = "swin_tiny_patch4_window7_224"  # the same code in a size for tests


def swin():
    torch.manual_seed(0)
    return SwinEncoder(0.0, TINY).eval()


def test_swin_is_timms_where_no_map_needs_padding():
    ours, images = swin(), torch.randn(1, 3, 224, 448, generator=torch.Generator().manual_seed(0))
    options = {"num_classes": 0, "global_pool": "", "dynamic_img_size": True, "always_partition": True}
    theirs = timm.create_model(TINY, pretrained=False, **options).eval()
    state = {key.removeprefix("model."): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict(theirs.state_dict() | {key: v for key, v in state.items() if not key.startswith("norm")})
    with torch.no_grad():
        tokens, maps = theirs.patch_embed(images), ours(images)[1:]
        for index, (stage, found) in enumerate(zip(theirs.layers, maps, strict=True)):
            tokens = stage(tokens)
            normed = ours.model.get_submodule(f"norm{index}")(tokens)
            torch.testing.assert_close(found, normed.movedim(-1, 1))


def test_swin_reads_any_size_and_padding_does_not_reach_what_is_far_from_it():
    images = torch.randn(1, 3, 121, 89, generator=torch.Generator().manual_seed(0))
    encoder = swin()
    with torch.no_grad():
        maps = encoder(images)
        wider = encoder(F.pad(images, (0, 56)))  # as many pixels more as two windows of the first stage
    assert [tuple(m.shape[2:]) for m in maps[1:]] == [(31, 23), (16, 12), (8, 6), (4, 3)]
    torch.testing.assert_close(wider[1][..., :14], maps[1][..., :14])


def test_swins_merged_patches_are_put_in_timms_order():
    """The authors unfold 2x2 patches channel by channel, timm concatenates them patch by patch."""
    torch.manual_seed(0)
    theirs, ours = PatchMerging(3), PatchMerging(3)
    nn.init.normal_(theirs.norm.weight)
    with torch.no_grad():
        tokens = torch.randn(2, 4, 6, 3)
        unfolded = F.unfold(tokens.movedim(-1, 1), kernel_size=2, stride=2).transpose(1, 2)  # (B, positions, C * 4)
        expected = theirs.reduction(theirs.norm(unfolded)).unflatten(1, (2, 3))
        published = {f"stages.0.downsample.{key}": value for key, value in theirs.state_dict().items()}
        published |= {"stages.0.blocks.0.attn.w_msa.qkv.weight": torch.zeros(1)}
        renamed = rename_backbone(published)
        ours.load_state_dict(
            {k.removeprefix("layers.1.downsample."): v for k, v in renamed.items() if "downsample" in k}
        )
        torch.testing.assert_close(ours(tokens), expected)


def test_swins_positions_are_computed_when_it_was_built_without_content():
    with torch.device("meta"):
        empty = SwinEncoder(0.0, TINY)
    state = swin().state_dict()
    assert not any("relative_position_index" in key for key in state)
    empty.load_state_dict(state, assign=True)
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(empty.eval()(images)[-1], swin()(images)[-1])
