"""Every layout in the wild loads to the same logits, with what it says about itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

from segformer_edge.errors import CheckpointError
from segformer_edge.model import sources
from segformer_edge.model.checkpoint import load_checkpoint, load_for_training
from segformer_edge.model.config import VARIANTS
from segformer_edge.model.keymaps import LAYOUTS, ORIGINAL, detect_layout, name_in_file
from segformer_edge.model.save import save_checkpoint
from segformer_edge.model.segformer import SegFormer

CLASSES = 7
IMAGE = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(5))


def logits(model):
    with torch.no_grad():
        return model(IMAGE)


def original_layout(state):
    """The original authors' names of ``state``, written out by hand and apart from the loader's tables."""
    renamed = {}
    for key, value in state.items():
        if match := re.match(r"stages\.(\d)\.(.*)", key):
            stage, rest = int(match[1]) + 1, match[2]
            if rest.startswith("patch_embedding."):
                name = f"backbone.patch_embed{stage}." + rest.removeprefix("patch_embedding.")
            elif rest.startswith("norm."):
                name = f"backbone.norm{stage}." + rest.removeprefix("norm.")
            else:
                block, inner = re.match(r"blocks\.(\d+)\.(.*)", rest).groups()
                if inner.startswith("attention.v."):
                    continue
                if inner.startswith("attention.k."):
                    value = torch.cat([value, state[key.replace(".k.", ".v.")]])
                for ours, theirs in (
                    ("attention.reduction.conv", "attn.sr"),
                    ("attention.reduction.norm", "attn.norm"),
                    ("attention.k.", "attn.kv."),
                    ("attention.", "attn."),
                    ("ffn.depthwise", "mlp.dwconv.dwconv"),
                    ("ffn.", "mlp."),
                ):
                    if inner.startswith(ours):
                        inner = theirs + inner.removeprefix(ours)
                        break
                name = f"backbone.block{stage}.{block}.{inner}"
        else:
            name = re.sub(r"projections\.(\d)", lambda m: f"linear_c{int(m[1]) + 1}.proj", key)
            for ours, theirs in (
                ("fuse", "linear_fuse.conv"),
                ("decode_head.norm", "decode_head.linear_fuse.bn"),
                ("classifier", "linear_pred"),
            ):
                name = name.replace(ours, theirs) if not name.startswith("decode_head.linear_c") else name
        renamed[name] = value
    return renamed


def test_original_names_are_the_published_ones(state):
    names = original_layout(state)
    for name in (
        "backbone.patch_embed1.proj.weight",
        "backbone.block1.0.attn.q.weight",
        "backbone.block1.1.attn.kv.bias",
        "backbone.block2.0.attn.sr.weight",
        "backbone.block3.0.attn.norm.bias",
        "backbone.block4.1.mlp.dwconv.dwconv.weight",
        "backbone.norm4.weight",
        "decode_head.linear_c4.proj.weight",
        "decode_head.linear_fuse.conv.weight",
        "decode_head.linear_fuse.bn.running_var",
        "decode_head.linear_pred.bias",
    ):
        assert name in names
    assert names["backbone.block1.0.attn.kv.weight"].shape == (64, 32)


@pytest.mark.parametrize("original_format", [True, False], ids=["4.x names", "5.x names"])
@pytest.mark.parametrize("shards", [False, True], ids=["one file", "shards"])
def test_hugging_face_folder(transformers_model, tmp_path, original_format, shards):
    theirs = transformers_model("b0")
    theirs.save_pretrained(
        tmp_path, save_original_format=original_format, **({"max_shard_size": "4MB"} if shards else {})
    )
    assert (tmp_path / "model.safetensors.index.json").exists() == shards
    loaded = load_checkpoint(tmp_path)
    assert ("4.x" if original_format else "5.x") in loaded.layout
    assert loaded.class_names[:2] == ("thing 0", "thing 1")
    assert (loaded.variant, loaded.config.norm_eps, len(loaded.sha256)) == ("b0", 1e-5, 64)
    assert not loaded.model.training
    with torch.no_grad():
        expected = theirs(IMAGE).logits
    assert (logits(loaded.model) - expected).abs().max() <= 1e-5 * (expected.max() - expected.min())


def test_hugging_face_folder_with_a_bin_file(transformers_model, tmp_path):
    theirs = transformers_model("b0")
    theirs.save_pretrained(tmp_path)
    expected = logits(load_checkpoint(tmp_path).model)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 512, "width": 640}}))
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A card")
    loaded = load_checkpoint(str(tmp_path))
    assert torch.equal(logits(loaded.model), expected)
    assert (loaded.native_size, loaded.licence) == ((512, 640), "mit")


@pytest.mark.parametrize("nested", [True, False])
def test_original_pth(reference, state, tmp_path, nested):
    names = original_layout(state)
    names["decode_head.conv_seg.weight"] = torch.zeros(CLASSES, 128, 1, 1)
    names["decode_head.conv_seg.bias"] = torch.zeros(CLASSES)
    names["decode_head.linear_fuse.bn.num_batches_tracked"] = torch.tensor(7)
    classes = tuple(f"class of meta {index}" for index in range(CLASSES))
    palette = [[index, 2 * index, 255 - index] for index in range(CLASSES)]
    content = {"meta": {"CLASSES": classes, "PALETTE": palette, "epoch": 3}, "state_dict": names}
    path = tmp_path / "segformer.b0.pth"
    torch.save(content if nested else names, path)
    loaded = load_checkpoint(path)
    assert loaded.layout == ORIGINAL.name
    # The original's epsilon; with ours set back the logits are the same to the bit.
    assert (loaded.config.norm_eps, loaded.config.embed_norm_eps) == (1e-6, 1e-5)
    for module in loaded.model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    assert torch.equal(logits(loaded.model), logits(reference))
    if nested:
        assert loaded.class_names == classes
        assert loaded.palette[1] == (1, 2, 254)
    else:
        assert loaded.class_names[0] == "class 0"
        assert loaded.palette is None


def test_wrappers_prefixes_are_taken_off(reference, state, tmp_path):
    torch.save({"model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "w.pth")
    assert torch.equal(logits(load_checkpoint(tmp_path / "w.pth").model), logits(reference))


def test_our_safetensors(reference, state, saved):
    names, palette = [f"n{i}" for i in range(CLASSES)], [[i, i, i] for i in range(CLASSES)]
    half = {key: value.half() for key, value in state.items()}
    header = {
        "format": "segformer_edge",
        "schema": "1",
        "model": "b0",
        "size": "256x320",
        "class_names": json.dumps(names),
        "palette": json.dumps(palette),
        "licence": "Apache-2.0",
        "source": "a test",
    }
    loaded = load_checkpoint(saved(half, **header), num_classes=CLASSES, variant="b0")
    assert (loaded.native_size, loaded.licence, loaded.class_names[3]) == ((256, 320), "Apache-2.0", "n3")
    assert loaded.palette[2] == (2, 2, 2)
    assert all(p.dtype == torch.float32 for p in loaded.model.parameters())
    expected = logits(reference)
    assert (logits(loaded.model) - expected).abs().max() < 0.01 * (expected.max() - expected.min())
    with pytest.raises(CheckpointError, match="schema '2'"):
        load_checkpoint(saved(half, name="b.safetensors", **(header | {"schema": "2"})))


@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_saved_by_us_is_read_by_us(reference, tmp_path, eps):
    weights = reference.state_dict()
    reference = SegFormer(replace(reference.config, norm_eps=eps)).eval()
    reference.load_state_dict(weights)
    path = tmp_path / "ours.safetensors"
    names = [f"n{i}" for i in range(CLASSES)]
    palette = [(i, i, i) for i in range(CLASSES)]
    save_checkpoint(
        reference,
        path,
        size=(64, 96),
        palette=palette,
        source="t",
        licence="MIT",
        class_names=names,
        dtype=torch.float32,
    )
    loaded = load_checkpoint(path)
    assert torch.equal(logits(loaded.model), logits(reference))
    assert loaded.config.norm_eps == eps
    assert (loaded.class_names, loaded.palette, loaded.native_size) == (tuple(names), tuple(palette), (64, 96))


def test_demo():
    loaded = load_checkpoint("demo")
    assert (loaded.variant, loaded.licence, loaded.source) == ("b0", "Apache-2.0", "demo")
    assert len(loaded.palette) == loaded.config.num_classes >= 6
    assert sources.DEMO.stat().st_size <= 8_000_000


def test_loading_leaves_the_random_state_alone(state, saved):
    path = saved(state)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    load_checkpoint(path)
    assert torch.equal(torch.rand(1), expected)


def test_training_starts_from_an_imagenet_encoder(state, tmp_path):
    names = original_layout(state)
    encoder = {key.removeprefix("backbone."): value for key, value in names.items() if key.startswith("backbone.")}
    encoder |= {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    path = tmp_path / "mit_b0.pth"
    torch.save(encoder, path)
    with pytest.raises(CheckpointError, match=r"mit_b0\.pth.*no decode head") as error:
        load_checkpoint(path)
    assert "--init" in error.value.hint
    loaded = load_for_training(path, num_classes=5, class_names=tuple("abcde"))
    assert (loaded.config.num_classes, loaded.class_names, loaded.variant) == (5, tuple("abcde"), "b0")
    got = loaded.model.state_dict()
    assert torch.equal(got["stages.3.blocks.1.attention.v.weight"], state["stages.3.blocks.1.attention.v.weight"])


def test_training_replaces_only_a_classifier_of_other_classes(state, saved):
    path = saved(state)
    kept = load_for_training(path, num_classes=CLASSES, class_names=tuple("abcdefg"))
    assert kept.class_names == tuple("abcdefg")
    assert torch.equal(kept.model.decode_head.classifier.weight, state["decode_head.classifier.weight"])
    changed = load_for_training(path, num_classes=3)
    assert changed.model.decode_head.classifier.weight.shape == (3, 256, 1, 1)
    assert torch.equal(changed.model.decode_head.fuse.weight, state["decode_head.fuse.weight"])


@pytest.mark.parametrize("variant", ["b0", "b1"])
def test_training_starts_from_transformers_image_classifier(tmp_path, variant):
    """nvidia/mit-b0's layout: an encoder with an ImageNet classifier and its 1000 names."""
    import transformers

    values = VARIANTS[variant]
    config = transformers.SegformerConfig(
        num_labels=1000, hidden_sizes=list(values["embed_dims"]), depths=list(values["depths"])
    )
    classifier = transformers.SegformerForImageClassification(config).eval()
    classifier.save_pretrained(tmp_path)
    loaded = load_for_training(tmp_path, num_classes=3, class_names=("a", "b", "c"), variant=variant)
    assert (loaded.variant, loaded.config.num_classes, loaded.class_names) == (variant, 3, ("a", "b", "c"))
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = classifier.segformer(image).last_hidden_state
        assert (loaded.model.features(image)[-1] - expected).abs().max() < 1e-4
        # Near-zero logits: the new head starts with the same loss for every class.
        assert loaded.model(image).abs().max() < 1.0


def test_classifier_rows_are_carried_over(state, saved):
    path = saved(state)

    def rows(names):
        assert len(names) == CLASSES
        return {0: [4], 2: [1, 3]}

    loaded = load_for_training(path, num_classes=4, class_names=tuple("abcd"), classifier_rows=rows)
    old, new = state["decode_head.classifier.weight"], loaded.model.decode_head.classifier
    assert torch.equal(new.weight[0], old[4])
    assert torch.equal(new.weight[2], (old[1] + old[3]) / 2)
    assert torch.equal(new.bias[2], state["decode_head.classifier.bias"][[1, 3]].mean())
    assert not any(torch.equal(new.weight[1], row) for row in old)
    encoder = {key: value for key, value in state.items() if key.startswith("stages.")}
    with pytest.raises(CheckpointError, match="no classifier"):
        load_for_training(saved(encoder, "encoder.safetensors"), num_classes=4, classifier_rows=rows)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_layout_names_every_key_both_ways(state, layout):
    theirs = {key: name_in_file(key, layout) for key in state}
    assert detect_layout(theirs.values()) is layout
    for ours, name in theirs.items():
        back = layout.to_ours(name)
        assert back == (ours if layout is not ORIGINAL else re.sub(r"attention\.[kv]\.", "attention.kv.", ours))
