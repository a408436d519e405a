"""Tables that remap classes: what becomes of the labels, and what is said about a table that does not fit."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segformer_edge.data.class_map import ClassMap, load_class_map
from segformer_edge.data.sample import Sample, SegmentationDataset
from segformer_edge.errors import UsageError

CSV = "source,target,init\nroad,ground,earth\ngrass,ground,grass\ncar,vehicle,\n3,ignore,\n"


class Labels(SegmentationDataset):
    """One image whose labels run through every class and 255."""

    def __init__(self) -> None:
        super().__init__("labels", ("road", "grass", "car", "sky"), [(1, 1, 1), (2, 2, 2), (3, 3, 3), (4, 4, 4)])

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        labels = np.array([[0, 1, 2, 3, 255]], np.uint8)
        return Sample(np.zeros((1, 5, 3), np.uint8), labels, "one")


def saved(tmp_path, text, suffix=".csv"):
    path = tmp_path / f"map{suffix}"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_are_merged_and_ignored(tmp_path):
    table = load_class_map(saved(tmp_path, CSV))
    mapped = table.apply(Labels())
    assert mapped.class_names == ("ground", "vehicle") and mapped.palette == [(1, 1, 1), (3, 3, 3)]
    assert mapped[0].labels.tolist() == [[0, 0, 1, 255, 255]]
    assert table.classifier_rows(("sky", "grass", "earth")) == {0: [2, 1]}


def test_three_formats_say_the_same(tmp_path):
    classes = {"road": "ground", "grass": "ground", "car": "vehicle", "3": "ignore"}
    tables = {"classes": classes, "init": {"ground": ["earth", "grass"]}}
    toml = "[classes]\n" + "".join(f"{k} = '{v}'\n" for k, v in classes.items()) + "[init]\nground=['earth','grass']\n"
    maps = [
        load_class_map(saved(tmp_path, CSV)),
        load_class_map(saved(tmp_path, json.dumps(tables), ".json")),
        load_class_map(saved(tmp_path, toml, ".toml")),
    ]
    assert maps[0] == maps[1] == maps[2]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.permutations([0, 1, 2, 3]))
def test_numbers_keep_their_order(targets):
    table = ClassMap({str(source): str(target) for source, target in enumerate(targets)})
    assert table.apply(Labels())[0].labels.tolist() == [[*targets, 255]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from,to\na,b\n", "header"),
        ("source,target\nroad,\n", "Line 2"),
        ("source,target\nroad,a,b,c\n", "Line 2"),
        ("source,target\nroad,a\nroad,b\n", "again"),
        ("source,target\nroad,ignore\n", "every class is ignored"),
        ("source,target\nroad,0\ngrass,2\n", "numbers start at 0"),
        ("source,target\nroad,a\ngrass,a\ncar,a\n", "says nothing of 1 classes.*sky"),
        ("source,target\nroda,a\n", "Did you mean 'road'"),
        ("source,target\nroad,a\n0,b\n", "'road' twice"),
        ("source,target\n4,a\n", "0 to 3"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, text, message):
    with pytest.raises(UsageError, match=f"(?s){message}"):
        load_class_map(saved(tmp_path, text)).apply(Labels())


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".json", "[]"),
        (".json", "{"),
        (".json", '{"classes": {"road": true}}'),
        (".json", '{"classes": {"road": "a"}, "other": {}}'),
        (".json", '{"classes": {"road": "a"}, "init": {"b": "road"}}'),
        (".toml", "classes = 3"),
        (".txt", "road a"),
        (".csv", 'source,target\n"' + "a" * 200_000),  # a quote that nobody closed
    ],
)
def test_files_that_are_no_table(tmp_path, suffix, text):
    with pytest.raises(UsageError, match="map"):
        load_class_map(saved(tmp_path, text, suffix))


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        load_class_map(tmp_path / "none.csv")
