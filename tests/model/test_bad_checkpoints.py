"""Bad checkpoints: exit code 2, and a message that names the file and the key."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch

from segformer_edge.errors import CheckpointError, UsageError
from segformer_edge.model.checkpoint import load_checkpoint

KEY = "stages.2.blocks.1.attention.k.weight"


def refuse(source, *words, **options):
    """Load, expect a refusal whose message has all ``words``, and give the error back."""
    with pytest.raises(UsageError) as caught:
        load_checkpoint(source, **options)
    assert caught.value.exit_code == 2
    for word in words:
        assert str(word) in str(caught.value)
    return caught.value


def test_missing_key(state, saved):
    del state[KEY]
    error = refuse(saved(state), "weights.safetensors", "lacks 1 key", f"'{KEY}'")
    assert error.hint


def test_missing_key_is_named_as_in_the_file(transformers_model, tmp_path):
    from safetensors.torch import load_file, save_file

    transformers_model("b0").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    key = "decode_head.linear_c.2.proj.bias"
    del tensors[key]
    save_file(tensors, path)
    refuse(tmp_path, tmp_path, f"'{key}'")


def test_missing_block_is_not_a_shallower_model(state, saved):
    state = {key: value for key, value in state.items() if not key.startswith("stages.1.blocks.1.")}
    refuse(saved(state), "weights.safetensors", "depths (2, 1, 2, 2)", "B0 to B5")


def test_many_missing_keys_are_counted(state, saved):
    state = {key: value for key, value in state.items() if ".ffn.fc2." not in key}
    refuse(saved(state), "lacks 16 keys", "stages.0.blocks.0.ffn.fc2.weight", "and 12 more")


def test_missing_stage(state, saved):
    state = {key: value for key, value in state.items() if not key.startswith("stages.3.")}
    refuse(saved(state), "stages.3.patch_embedding.proj.weight")


def test_unexpected_key(state, saved):
    state["stages.0.blocks.0.attention.relative_position"] = torch.zeros(3)
    refuse(saved(state), "weights.safetensors", "stages.0.blocks.0.attention.relative_position")


def test_key_of_a_part_that_this_stage_does_not_have(state, saved):
    state["stages.3.blocks.0.attention.reduction.norm.weight"] = torch.zeros(256)
    refuse(saved(state), "too many", "stages.3.blocks.0.attention.reduction.norm.weight")


@pytest.mark.parametrize(
    "key", [KEY, "stages.0.patch_embedding.proj.weight", "decode_head.projections.3.weight", "decode_head.fuse.weight"]
)
def test_wrong_shape(state, saved, key):
    state[key] = state[key][:-1]
    refuse(saved(state), "weights.safetensors", "wrong shape", f"'{key}'")


def test_wrong_class_count(state, saved):
    refuse(saved(state), "weights.safetensors", "7 classes", "decode_head.classifier.weight", "not 11", num_classes=11)


def test_classifier_that_disagrees_with_its_bias(state, saved):
    state["decode_head.classifier.bias"] = torch.zeros(9)
    refuse(saved(state), "wrong shape", "decode_head.classifier.bias")


def test_class_names_that_disagree_with_the_classifier(transformers_model, tmp_path):
    transformers_model("b0").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["id2label"]["7"] = "one more"
    path.write_text(json.dumps(config))
    refuse(tmp_path, "8 classes", "decode_head.classifier.weight", "7")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(state, saved, value):
    state[KEY][3, 4] = value
    refuse(saved(state), "weights.safetensors", "NaN or infinite", f"'{KEY}'")


def test_negative_variance(state, saved):
    state["decode_head.norm.running_var"][0] = -1
    refuse(saved(state), "variance", "decode_head.norm.running_var")


def test_integer_weights(state, saved):
    state[KEY] = state[KEY].to(torch.int8)
    refuse(saved(state), "not floating point", KEY)


def test_other_variant_asked_for(state, saved):
    refuse(saved(state), "is b0", "not b1", variant="b1")
    refuse(saved(state), "Unknown SegFormer variant 'b9'", variant="b9")


@pytest.mark.parametrize("keep", [-1000, 5000, 12, 5])
def test_truncated_safetensors(state, saved, keep):
    path = saved(state)
    path.write_bytes(path.read_bytes()[:keep])
    refuse(path, path, "not a checkpoint" if keep == 5 else "truncated")


def test_damaged_safetensors_header(state, saved):
    path = saved(state)
    content = bytearray(path.read_bytes())
    content[9:30] = b"\xff" * 21
    path.write_bytes(content)
    refuse(path, path, "damaged")


def test_safetensors_header_without_an_end(tmp_path):
    header = b'{"a":' + b"[" * 100_000
    (tmp_path / "deep.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refuse(tmp_path / "deep.safetensors", tmp_path / "deep.safetensors", "damaged")


def test_safetensors_with_bytes_too_many(state, saved):
    path = saved(state)
    path.write_bytes(path.read_bytes() + b"\0" * 64)
    refuse(path, path, "damaged")


def test_truncated_pth(state, tmp_path):
    path = tmp_path / "w.pth"
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:-5000])
    refuse(path, path, "damaged or truncated")


class Payload:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_pickle_with_code_is_refused_and_not_run(state, tmp_path, write):
    path, marker = tmp_path / "w.pth", tmp_path / "was run"
    write({"state_dict": state, "hooks": Payload(marker)}, path)
    error = refuse(path, path, "refused")
    assert "weights_only=False" in error.hint
    assert not marker.exists()


def test_not_checkpoints(tmp_path):
    text = tmp_path / "notes.pth"
    text.write_text("These are notes, not weights.\n")
    refuse(text, text, "not a checkpoint")
    pointer = tmp_path / "model.safetensors"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refuse(pointer, pointer, "Git LFS pointer")
    empty = tmp_path / "empty.pth"
    empty.touch()
    refuse(empty, empty, "empty")
    number = tmp_path / "number.pth"
    torch.save(3, number)
    refuse(number, number, "no tensors")
    script = tmp_path / "script.pth"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(script))
    refuse(script, script, "TorchScript")
    other = tmp_path / "other.pth"
    torch.save(torch.nn.Linear(2, 2).state_dict(), other)
    refuse(other, other, "not a SegFormer checkpoint", "'weight'")


def test_paths_that_are_not_there(tmp_path):
    refuse(tmp_path / "missing.pth", "missing.pth")
    refuse("weights/missing.safetensors", "no file or folder 'weights/missing.safetensors'")
    refuse("demos", "no file or folder 'demos'")
    refuse(tmp_path, tmp_path, "no weights file")


def test_folder_with_several_weights_files(state, saved):
    folder = saved(state, "a.safetensors").parent
    saved(state, "b.safetensors")
    refuse(folder, "2 weights files", "a.safetensors")


def test_shards(transformers_model, tmp_path):
    transformers_model("b0").save_pretrained(tmp_path, max_shard_size="4MB")
    shard = next(iter(sorted(tmp_path.glob("model-00002*"))))
    shard.unlink()
    refuse(tmp_path, shard.name, "missing")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../secret.safetensors"}}')
    refuse(tmp_path, "outside its folder")


def test_config_of_another_model(transformers_model, tmp_path):
    transformers_model("b0").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    for change, word in (
        ({"model_type": "bert"}, "'bert'"),
        ({"hidden_act": "relu"}, "'relu'"),
        ({"hidden_sizes": [64, 128, 320, 512]}, "(64, 128, 320, 512)"),
        ({"depths": [2, 2, 2, 3]}, "lacks"),
        ({"num_attention_heads": [1, 2, 3, 8]}, "3 heads"),
        ({"num_attention_heads": 8}, "description"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
    ):
        path.write_text(json.dumps(config | change))
        refuse(tmp_path, tmp_path.name, word)
    path.write_text("{")
    refuse(tmp_path, "config.json", "JSON")


def test_message_is_short(state, saved):
    state = {key: value for key, value in state.items() if "norm" not in key}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved(state))
    assert len(str(caught.value)) < 1000
