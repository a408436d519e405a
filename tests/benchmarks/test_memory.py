"""The memory table and plot, from measurements that are made up: no file is built or run here."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from segformer_edge.errors import ArtifactError, DataError, SegformerEdgeError, UsageError
from segformer_edge.memory.measurement import BY_HOOK, Measurement, Split
from segformer_edge.progress import Progress

MIB = 1024 * 1024


def measurement(file: Path, arena: int | None, growth: int, activations: int) -> Measurement:
    return Measurement(
        file=f"/somewhere/{file}", file_bytes=4_000_000, format="tflite", runtime="LiteRT", versions={}, device="host",
        kind=BY_HOOK, threads=1, inputs=(), phases=(), peak_bytes=growth + 5 * MIB, inference_growth=growth,
        load_growth=growth, run_growth=growth, run_split=Split(0, 5 * MIB, activations, 0, growth - activations, 0),
        load_split=None, mapped_bytes=None, resident_bytes=None, arena_bytes=arena, blocks=(),
    )  # fmt: skip


class FakeMachine:
    """Defaults take 20 MiB, our untiled files 8 MiB, our tiled ones 1 MiB, and 1 % more on ARM."""

    SIZES = {"default": 20 * MIB, "ours": MIB, "untiled": 8 * MIB}  # noqa: RUF012
    TIMES = {"default": 300.0, "ours": 110.0, "untiled": 100.0}  # noqa: RUF012

    def __init__(self) -> None:
        self.budgets: list[int | None] = []
        self.variants: set[str] = set()

    def default(self, case) -> Path:
        return Path("/made/default").with_suffix(".pte" if case.kind.target == "executorch" else ".tflite")

    def ours(self, case, budget: int | None) -> Path:
        self.budgets.append(budget)
        name = "untiled" if budget is None else "ours"
        return Path(name).with_suffix(".pte" if case.kind.target == "executorch" else ".tflite")

    def measure(self, path: Path, *, on: str = "host", variant: str = "") -> Measurement:
        self.variants.add(variant)
        if on != "host" and path.suffix == ".pte":
            raise UsageError("executorch has no runtime on emulated aarch64.")
        size = self.SIZES[path.stem] * (101 if on != "host" else 100) // 100
        return measurement(path, size, size + MIB, size + MIB // 2)

    def time(self, files, variants) -> list[float]:
        assert len(files) == len(variants)
        return [self.TIMES[file.stem] for file in files]

    def rows(self, cases=None, **changes):
        import memory

        parts = {"find_default": self.default, "find_ours": self.ours, "on": "cortex-a72", "tell": Progress()}
        parts |= {"measure": self.measure, "time_files": self.time, **changes}
        return [memory.fill(case, **parts) for case in cases or memory.CASES]


def test_every_row_holds_its_own_figure_limit_and_prices():
    fake = FakeMachine()
    rows = {row.case.name: row for row in fake.rows()}
    assert len(rows) == 6
    plain, growth, pte = (rows[f"random-{kind}"] for kind in ("tflite-plain", "tflite-xnnpack", "pte"))
    assert plain.ours.figure_bytes == MIB
    assert growth.ours.figure_bytes == 2 * MIB
    assert pte.ours.figure_bytes == MIB + MIB // 2
    assert plain.ratio == 20
    assert fake.variants == {"", "no-delegate", "compiled"}
    # The limit is the issue's own, or a tenth of the default's figure.
    assert plain.limit_bytes == 1.5 * MIB and growth.limit_bytes == 6_000_000
    camvid = rows["camvid-tflite-plain"]
    assert camvid.limit_bytes == 2 * MIB
    assert {1.5 * MIB, 6_000_000, 2 * MIB, None} <= set(fake.budgets)
    assert growth.slowdown == pytest.approx(0.1) and growth.verdicts["slowdown"] is True
    # Kernels without a delegate are not held to a time.
    assert plain.verdicts["slowdown"] is None
    assert plain.ours.cpu_difference == pytest.approx(0.01, abs=1e-4) and plain.verdicts["arm"] is True
    assert pte.ours.arm_bytes is None and pte.verdicts["arm"] is None and pte.ours.figure_bytes
    assert pte.ours.error is None and "no runtime" in pte.ours.arm_error


def test_rows_fail_where_a_limit_does_not_hold():
    from memory_cases import CASES

    fake = FakeMachine()
    fake.SIZES = {**fake.SIZES, "ours": 7 * MIB}
    fake.TIMES = {**fake.TIMES, "ours": 116.0}
    row = fake.rows([CASES[1]])[0]
    assert row.verdicts["within_limit"] is False and row.verdicts["slowdown"] is False


def test_what_fails_is_named_and_the_rest_still_measured():
    from memory_cases import CASES
    from memory_table import markdown

    def broken(case, budget):
        if budget is not None:
            raise SegformerEdgeError("quantize ended with 3: the floor is 2 MiB\n  more")
        return Path("untiled.tflite")

    def refuses(path, *, on="host", variant=""):
        if path.stem == "default":
            raise ArtifactError(f"LiteRT cannot load '{path}'.")
        return FakeMachine().measure(path, on=on, variant=variant)

    row = FakeMachine().rows([CASES[0]], find_ours=broken, measure=refuses)[0]
    assert row.ours.figure_bytes is None and row.untiled.figure_bytes == 8 * MIB
    assert row.default.latency_ms is None and row.untiled.latency_ms == 100.0
    text = markdown([row], "a test")
    assert "random-tflite-plain (ours): quantize ended with 3: the floor is 2 MiB" in text
    assert "random-tflite-plain (default): LiteRT cannot load 'default.tflite'." in text
    assert "| not measured | 8.00 MiB | not measured | 1.50 MiB |" in text
    # A tenth of a default that was not measured is no limit, so no budget either.
    row = FakeMachine().rows([CASES[3]], measure=refuses)[0]
    assert row.limit_bytes is None and row.ours.error == "no default to set the limit"


def test_a_runtime_that_dies_while_timed_leaves_the_bytes():
    from memory_cases import CASES

    def dies(files, variants):
        raise RuntimeError("the process ended")

    row = FakeMachine().rows([CASES[1]], time_files=dies)[0]
    assert row.ours.figure_bytes == 2 * MIB and row.ours.latency_ms is None
    assert row.ours.error == "latency: RuntimeError: the process ended"


def test_table_is_replaced_and_the_text_around_it_stays(tmp_path):
    from marked_block import update
    from memory_table import MARK, markdown

    page = tmp_path / "memory.md"
    page.write_text("# Title\n\n<!-- memory-table -->\nstale \\1\n<!-- /memory-table -->\n\nAfter.\n")
    block = markdown(FakeMachine().rows(), "a test")
    update(page, MARK, block)
    update(page, MARK, block)
    text = page.read_text()
    assert text.startswith("# Title\n\n<!-- memory-table -->\nMeasured on: a test.\n")
    assert text.endswith("<!-- /memory-table -->\n\nAfter.\n") and "stale" not in text
    assert (
        text.count("| 512x512, 150 classes, `.tflite` without delegate, arena | 20.00 MiB | 8.00 MiB | 1.00 MiB |") == 1
    )
    assert "+10.0 %" in text and "1.01 MiB (cortex-a72)" in text
    columns = {line.count("|") for line in text.splitlines() if line.startswith("| 512x512, 150 classes, `.tflite` w")}
    assert columns <= {8, 7, 6}
    page.write_text("no marks")
    with pytest.raises(UsageError, match="no block"):
        update(page, MARK, block)
    assert page.read_text() == "no marks"


def test_command_takes_given_files_and_writes_both_documents(tmp_path, monkeypatch, capsys):
    import memory

    fake, ours = FakeMachine(), tmp_path / "ours"
    monkeypatch.setattr(memory, "measure", fake.measure)
    monkeypatch.setattr(memory, "medians", fake.time)
    monkeypatch.setattr(fake, "SIZES", {"model": MIB})
    monkeypatch.setattr(fake, "TIMES", {"model": 100.0})
    for folder in ("random-tflite-plain", "random-tflite-plain-no-budget"):
        (ours / folder).mkdir(parents=True)
        (ours / folder / "model.tflite").write_bytes(b"given")
    monkeypatch.setattr(memory, "sources", lambda options, cases: {})
    docs = tmp_path / "docs"
    options = ["--only", "random-tflite-plain", "--no-defaults", "--ours", str(ours), "--docs", str(docs)]
    assert memory.main(options) == 0
    assert "random-tflite-plain     not measured      1.00 MiB      1.00 MiB  PASS" in capsys.readouterr().out
    rows = json.loads((docs / "memory.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["random-tflite-plain"]
    # Names alone: the page is published, and says nothing of the machine's folders.
    assert rows[0]["ours"]["measurement"]["file"] == "model.tflite" and str(tmp_path) not in json.dumps(rows)
    assert rows[0]["ours"]["measurement"]["arena_bytes"] == MIB and rows[0]["default"]["figure_bytes"] is None
    assert "left out of this run" in (docs / "memory.md").read_text()
    with pytest.raises(UsageError, match="camvid-pte"):
        memory.main(["--only", "camvid-ptee"])


def test_quantize_is_asked_for_labels_within_the_budget():
    from memory_cases import CASES
    from memory_ours import Source, command

    source = Source(Path("weights"), Path("images"))
    words = " ".join(command(CASES[0], source, 1572864, Path("out")))
    assert "--size 512x512 --output labels" in words and "--targets tflite --recipe npu" in words
    assert words.endswith("--memory-budget 1572864")
    assert "--memory-budget" not in command(CASES[0], source, None, Path("out"))


def test_lower_bound_is_the_feature_maps():
    from memory_size import lower_bound

    for side in (96, 512, 1024):
        # B0: 32/16 + 64/64 + 160/256 + 256/1024 bytes an input pixel; B1's maps are twice as wide.
        assert lower_bound("b0", side) == 3.875 * side * side
        assert lower_bound("b1", side) == 2 * lower_bound("b0", side)
        # The image's 3 bytes lie beside the first stream's 2.
        assert lower_bound("b0", side, image=True) == 5 * side * side


def test_plot_draws_every_curve_and_the_bound(tmp_path):
    import memory_size
    from memory_size import Peak, collect, load, lower_bound, save

    def peak(side: int, variant: str, budget: int | None) -> int | None:
        if budget and lower_bound(variant, side) > budget:
            return None
        return lower_bound(variant, side) * (1 if budget == 0 else 4)

    peaks = collect(peak, sides=(96, 512, 1024), budgets=(None, 2 * MIB, 0))
    assert Peak("b1", 1024, 2 * MIB, None) in peaks and len(peaks) == 18
    data = tmp_path / "memory_size.json"
    save(data, "planned arena", peaks)
    assert load(data) == ("planned arena", peaks)
    out = tmp_path / "memory_size.svg"
    assert memory_size.main([str(data), "--out", str(out)]) == 0
    texts = {"".join(node.itertext()) for node in ElementTree.parse(out).iter() if node.tag.endswith("}text")}
    assert {"B0, no budget", "B1, no budget", "B0, budget 2 MiB", "B0, least of all plans", "1024"} <= texts
    assert {"B0, lower bound: residual stream + feature maps", "planned arena"} <= texts
    assert any(text.removesuffix(" MiB").isdigit() for text in texts - {"1024", "512", "96"})
    first = out.read_bytes()
    memory_size.main([str(data), "--out", str(out)])
    assert out.read_bytes() == first
    save(data, "planned arena", [replace(peaks[0], bytes=-1)])
    with pytest.raises(DataError, match="bytes"):
        load(data)


def test_curve_ends_where_finer_tilings_need_more_and_picks_by_budget():
    from types import SimpleNamespace

    from memory_curve import ladder, peak_at

    needs = iter([9, 4, 6, 5, 1])
    planner = SimpleNamespace(
        tilings=lambda size: [(0, None)] * 5, forecast=lambda tiling, size: next(needs), way=SimpleNamespace(bytes=int)
    )
    found = ladder(planner, 96)
    assert found == [9, 4, 6, 5]
    assert [peak_at(found, budget) for budget in (None, 8, 0, 3)] == [9, 4, 4, None]
