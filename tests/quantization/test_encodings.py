"""Encodings: saved and loaded they give the same bits; anything else in the file is refused, never a crash."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.encodings import EncodingsError, apply_encodings, encodings_of, load_encodings, save_encodings
from quantization.sites import Mode, named_sites, set_mode

#: Shared machines stall, and every run tries the same examples.
relaxed = settings(deadline=None, derandomize=True, max_examples=60)


@pytest.fixture
def encodings(calibrated):
    return encodings_of(calibrated, "all_int8")


@torch.no_grad()
def test_saved_and_loaded_encodings_give_the_same_bits(calibrated, net_again, batch, tmp_path, encodings):
    save_encodings(encodings, tmp_path / "encodings.json")
    apply_encodings(net_again, load_encodings(tmp_path / "encodings.json"))
    assert torch.equal(net_again(batch), calibrated(batch))
    assert encodings_of(net_again, "all_int8") == encodings
    assert [path.name for path in tmp_path.iterdir()] == ["encodings.json"]


@torch.no_grad()
def test_segformer_encodings_give_the_same_bits(quantized_edge, edge, pictures, tmp_path):
    path = tmp_path / "encodings.json"
    save_encodings(encodings_of(quantized_edge, "mixed"), path)
    apply_encodings(edge, load_encodings(path))
    assert torch.equal(edge(pictures), quantized_edge(pictures))


def test_sites_that_are_not_named_become_float(calibrated, encodings):
    del encodings["activations"]["residual"], encodings["weights"]["second"]
    apply_encodings(calibrated, encodings)
    assert not calibrated.residual.active and calibrated.residual.params is None
    assert not calibrated.second.active and calibrated.second.scales is None


def test_encodings_of_other_weights_are_refused(other_net, encodings):
    with pytest.raises(EncodingsError, match="other weights"):
        apply_encodings(other_net, encodings)


def test_encodings_of_another_architecture_are_refused(edge, encodings):
    with pytest.raises(EncodingsError, match="other weights"):
        apply_encodings(edge, encodings)


@pytest.mark.parametrize("table", ["activations", "weights"])
def test_unknown_entry_is_named(net_again, encodings, table):
    encodings[table]["stages.9"] = {}
    with pytest.raises(EncodingsError, match=rf"{table} name 'stages\.9'"):
        apply_encodings(net_again, encodings)


SPOILT = [
    ("activations", "image", "scale", -1.0),
    ("activations", "image", "scale", 0),
    ("activations", "image", "scale", 1e-200),
    ("activations", "image", "scale", 10**400),
    ("activations", "image", "scale", True),
    ("activations", "image", "zero_point", 3.5),
    ("activations", "image", "zero_point", 1000),
    ("activations", "image", "dtype", "int4"),
    ("activations", "image", "dtype", ["int8"]),
    ("weights", "first", "dtype", "int16"),
    ("weights", "first", "scale", [0.1]),
    ("weights", "first", "scale", [0.1] * 7 + [math.inf]),
    ("weights", "first", "scale", [0.1] * 7 + [0.0]),
    ("weights", "first", "scale", [0.1] * 7 + [10**400]),
    ("weights", "first", "scale", [0.1] * 7 + [None]),
    ("weights", "first", "scale", {"a": 1}),
    ("weights", "first", "scale", 0.1),
]


@pytest.mark.parametrize(("table", "name", "key", "value"), SPOILT, ids=lambda value: str(value)[:20])
def test_impossible_value_is_refused_naming_the_entry(net_again, encodings, table, name, key, value):
    encodings[table][name][key] = value
    with pytest.raises(EncodingsError, match=f"'{name}'.*{key}|'{name}'.*malformed"):
        apply_encodings(net_again, encodings)


@pytest.mark.parametrize(
    ("table", "name", "key"), [("activations", "residual", "scale"), ("weights", "second", "dtype")]
)
def test_missing_value_is_refused_naming_the_entry(net_again, encodings, table, name, key):
    del encodings[table][name][key]
    with pytest.raises(EncodingsError, match=f"'{name}' has no '{key}'"):
        apply_encodings(net_again, encodings)


@torch.no_grad()
def test_refused_encodings_leave_the_model_as_it_was(calibrated, batch, encodings):
    expected = calibrated(batch)
    encodings["activations"]["image"]["scale"] = 5.0
    encodings["weights"]["second"]["scale"] = None
    with pytest.raises(EncodingsError):
        apply_encodings(calibrated, encodings)
    assert torch.equal(calibrated(batch), expected)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(EncodingsError, match=rf"{tmp_path}.*No such file"):
        load_encodings(tmp_path / "absent.json")


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": 2}', b"{}"])
def test_file_that_is_not_encodings_is_named(tmp_path, content):
    path = tmp_path / "encodings.json"
    path.write_bytes(content)
    with pytest.raises(EncodingsError, match=r"encodings\.json"):
        load_encodings(path)


@pytest.mark.parametrize("table", ["activations", "weights"])
def test_missing_table_is_named(tmp_path, encodings, table):
    del encodings[table]
    path = tmp_path / "encodings.json"
    path.write_text(json.dumps(encodings))
    with pytest.raises(EncodingsError, match=table):
        load_encodings(path)


def test_failed_writing_leaves_the_old_file(tmp_path, encodings):
    path = tmp_path / "encodings.json"
    save_encodings(encodings, path)
    with pytest.raises(TypeError):
        save_encodings({"x": object()}, path)
    assert load_encodings(path) == encodings
    assert [file.name for file in tmp_path.iterdir()] == ["encodings.json"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def mutate(data: st.DataObject, value):
    """Replace, drop or add something at a random depth of ``value``."""
    children = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not children or data.draw(st.integers(0, 3)) == 0:
        return data.draw(JSON)
    key = data.draw(st.sampled_from(children))
    action = data.draw(st.sampled_from(["enter", "enter", "enter", "drop", "add"]))
    if action == "enter":
        value[key] = mutate(data, value[key])
    elif action == "drop":
        del value[key]
    elif isinstance(value, dict):
        value[data.draw(st.text(max_size=5))] = data.draw(JSON)
    else:
        value.append(data.draw(JSON))
    return value


@pytest.fixture(scope="module")
def fuzzed(net_and_encodings, tmp_path_factory):
    """Loads bytes as encodings and applies them: they work, or raise EncodingsError and nothing else."""
    model, good, batch = net_and_encodings
    path = tmp_path_factory.mktemp("fuzz") / "encodings.json"

    def run(content: bytes) -> None:
        path.write_bytes(content)
        try:
            apply_encodings(model, load_encodings(path))
        except EncodingsError as error:
            assert str(error)
        else:
            assert all(site.mode is Mode.FAKE for _, site in named_sites(model))
            for mode in (Mode.FAKE, Mode.EXPORT):
                set_mode(model, mode)
                assert torch.isfinite(model(batch)).all()

    return good, run


@relaxed
@given(st.data())
def test_mutated_encodings_work_or_are_refused(fuzzed, data):
    good, run = fuzzed
    run(json.dumps(mutate(data, copy.deepcopy(good))).encode())


@relaxed
@given(st.data())
def test_damaged_bytes_work_or_are_refused(fuzzed, data):
    good, run = fuzzed
    content = bytearray(json.dumps(good).encode())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    run(bytes(content[: data.draw(st.integers(0, len(content)))]))
