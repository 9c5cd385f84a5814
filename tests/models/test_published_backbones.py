"""Where the authors' backbones differ from the libraries' although every weight fits (docs/method.md, "Encoders")."""

import pytest
import timm
import torch
from helpers.golden_recipe import unit
from torch import nn

from pipeline.checkpoints.key_names import find_backbone, rename
from pipeline.config.parse import parse
from pipeline.config.schema import EncoderConfig
from pipeline.errors import PipelineError
from pipeline.models.encoder import build_encoder
from pipeline.models.encoders import vit_large_p16
from pipeline.models.layers import halving

IMAGES = unit("images", (1, 3, 97, 70))


def encoder(name, **config):
    torch.manual_seed(0)
    return build_encoder(parse(EncoderConfig, {"name": name, **config}, "tests"), pretrained=False).eval()


def test_resnest_shortcuts_of_dilated_stages_do_not_pool():
    model = encoder("resnest101", output_stride=8).model
    assert isinstance(model.layer2[0].downsample[0], nn.AvgPool2d)
    assert isinstance(model.layer3[0].downsample[0], nn.Identity)
    assert isinstance(model.layer4[0].downsample[0], nn.Identity)


def test_resnest_weights_fit_timm_but_give_other_maps():
    ours, timms = encoder("resnest101", output_stride=8), encoder("tu-resnest101e", output_stride=8)
    timms.load_state_dict(ours.state_dict())
    with torch.no_grad():
        mine, theirs = ours(IMAGES), timms(IMAGES)
    assert torch.equal(mine[3], theirs[3])
    assert not torch.allclose(mine[4], theirs[4], rtol=0.1)


def test_hrnet_joins_its_branches_at_stride_4_for_any_input_size():
    model = encoder("hrnetv2-w48")
    assert model.out_channels == [3, 48 + 96 + 192 + 384]
    with torch.no_grad():
        assert model(IMAGES)[1].shape == (1, 720, 25, 18)


def test_hrnet_fusion_is_bilinear_unlike_timms_nearest():
    model = encoder("hrnetv2-w48", options={"stem_relu": True})
    images = unit("images", (1, 3, 64, 64))
    timms = timm.create_model("hrnet_w48", features_only=True, feature_location="", out_indices=(1, 2, 3, 4)).eval()
    timms.load_state_dict(model.model.state_dict())
    with torch.no_grad():
        mine, theirs = model(images)[1][:, :48], timms(images)[0]
    assert mine.shape == theirs.shape
    assert not torch.allclose(mine, theirs, rtol=1e-2)


def test_hrnet_runs_without_the_first_stem_relu_unless_asked():
    published, today = encoder("hrnetv2-w48"), encoder("hrnetv2-w48", options={"stem_relu": True})
    today.load_state_dict(published.state_dict())
    with torch.no_grad():
        assert not torch.allclose(published(IMAGES)[1], today(IMAGES)[1], rtol=1e-2)


def test_the_block_that_halves_hrnets_map_moves_its_statistics_as_four_updates_would():
    block = halving(4, "relu").train()
    block(unit("maps", (2, 4, 8, 8)))
    variance_after_four = 0.9**4 * 1.0 + (1 - 0.9**4) * block[0](unit("maps", (2, 4, 8, 8))).var(dim=(0, 2, 3))
    assert torch.allclose(block[1].running_var, variance_after_four)


def test_vit_gives_four_maps_at_stride_16_and_has_no_final_norm():
    with torch.device("meta"):
        model = encoder("vit-large-p16")
        maps = model(torch.empty(1, 3, 97, 70))
    assert list(model.out_channels) == [3, 1024, 1024, 1024, 1024]
    assert [m.shape for m in maps[1:]] == [(1, 1024, 7, 5)] * 4  # padded right and bottom to multiples of 16
    assert not any(key.startswith("model.norm.") for key in model.state_dict())


def test_vit_positions_are_resized_bilinearly_without_the_class_token():
    embedding = torch.cat([torch.full((1, 1, 2), 9.0), torch.arange(4.0).view(1, 4, 1).expand(1, 4, 2)], dim=1)
    resized = vit_large_p16.position_embedding(embedding, (2, 4))  # from a grid of 2 x 2
    assert resized[0, :, 0].tolist() == [9.0, 0.0, 0.25, 0.75, 1.0, 2.0, 2.25, 2.75, 3.0]
    assert vit_large_p16.position_embedding(embedding, (2, 2)) is embedding


def test_vit_weights_for_384_pixels_are_fitted_to_512():
    with torch.device("meta"):
        encoder = vit_large_p16.VisionTransformerEncoder(grid=32)
    state = vit_large_p16.adapt_weights({"pos_embed": torch.zeros(1, 24 * 24 + 1, 1024)}, encoder)
    assert state["pos_embed"].shape == (1, 32 * 32 + 1, 1024)


def test_vit_may_store_another_grid_of_positions_and_reads_any_size():
    with torch.device("meta"):
        encoder = build_encoder(EncoderConfig(name="vit-large-p16", options={"grid": 29}), pretrained=False)
        assert encoder.model.pos_embed.shape == (1, 29 * 29 + 1, 1024)
        assert encoder(torch.zeros(1, 3, 512, 512))[-1].shape == (1, 1024, 32, 32)


@pytest.mark.parametrize("name", ["hrnetv2-w48", "vit-large-p16"])
def test_encoders_of_one_stride_refuse_another(name):
    with pytest.raises(PipelineError, match=r"leave output_stride and depth unset"):
        encoder(name, output_stride=8)


def test_encoder_options_are_checked():
    with pytest.raises(PipelineError, match=r"encoder.options: stem_rlu: unknown key; did you mean `stem_relu`"):
        encoder("hrnetv2-w48", options={"stem_rlu": False})
    with pytest.raises(PipelineError, match=r"encoder.options: tu-resnet50c has none"):
        encoder("tu-resnet50c", options={"stem_relu": False})


PUBLISHED_KEYS = {
    "ResNet-50/101 v1c": {"stem.0.weight": "conv1.0.weight", "stem.7.bias": "bn1.bias", "layer1.0.conv2.weight": None},
    "ResNeSt-101": {
        "stem.0.weight": "conv1.0.weight",
        "stem.6.weight": "conv1.6.weight",
        "stem.7.weight": "bn1.weight",
        "layer1.0.conv2.conv.weight": None,
    },
    "HRNetV2-W48": {"stage2.0.fuse_layers.0.1.0.weight": None, "transition3.3.0.0.weight": None},
    "ViT-Large/16": {
        "patch_embed.projection.weight": "patch_embed.proj.weight",
        "layers.3.ln1.weight": "blocks.3.norm1.weight",
        "layers.0.attn.attn.in_proj_weight": "blocks.0.attn.qkv.weight",
        "layers.23.attn.attn.out_proj.bias": "blocks.23.attn.proj.bias",
        "layers.2.ffn.layers.0.0.weight": "blocks.2.mlp.fc1.weight",
        "layers.2.ffn.layers.1.bias": "blocks.2.mlp.fc2.bias",
        "cls_token": None,
    },
}


@pytest.mark.parametrize("name", PUBLISHED_KEYS)
def test_published_backbone_keys_are_recognised_and_renamed(name):
    keys = PUBLISHED_KEYS[name]
    backbone = find_backbone(keys)
    assert backbone.name == name
    assert {key: rename(key, backbone.rules) for key in keys} == {key: new or key for key, new in keys.items()}
