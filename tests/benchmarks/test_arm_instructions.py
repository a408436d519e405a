"""The instruction table and its baseline, from counts that are made up: nothing is built or emulated here."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from segformer_edge.errors import ArtifactError, DataError, SegformerEdgeError, UsageError
from segformer_edge.instructions.count import InstructionCount
from segformer_edge.progress import Progress

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
#: Instructions of each file on Cortex-A76; A72 takes twice as many.
COUNTS = {
    "default int8": 4_000,
    "default float": 3_000,
    "ours int8": 1_000,
    "ours int8_attention": 840,
    "ours float": 1_800,
}


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.split("_")[0].split(".")[0] in ("arm", "defaults", "memory")]:
        del sys.modules[name]


def find_file(case) -> Path:
    return Path(f"{case.side} {case.precision}.{case.target}")


def fake_count(path: Path, cpu: str) -> InstructionCount:
    factor = 1 if cpu == "cortex-a76" else 2
    return InstructionCount(str(path), "", "a runtime", {"package": "1"}, cpu, COUNTS[path.stem] * factor)


def rows(cases=None, count=fake_count, find_file=find_file):
    import arm_instructions
    from arm_baseline import CASES

    return arm_instructions.measure(cases or CASES, find_file, count, Progress(), lambda row: None)


def test_every_case_is_counted_or_says_why_not():
    counted = rows()
    names = {row.case.name: row for row in counted}
    assert names["cortex-a72 tflite: default int8"].instructions == 8_000
    assert names["cortex-a76 onnx: ours float"].instructions == 1_800
    lacking = [row for row in counted if row.case.target == "executorch"]
    assert len(counted) == 22 and len(lacking) == 4
    assert all(row.instructions is None and "no runtime on emulated aarch64" in row.error for row in lacking)


def test_what_fails_is_in_its_row_and_the_rest_is_counted():
    def broken(case) -> Path:
        if case.side == "ours":
            raise SegformerEdgeError("quantize ended with 1\n  more")
        return find_file(case)

    def refuses(path: Path, cpu: str) -> InstructionCount:
        if path.suffix == ".onnx":
            raise ArtifactError(f"onnxruntime cannot load '{path}'.")
        return fake_count(path, cpu)

    found = {row.case.name: row for row in rows(count=refuses, find_file=broken)}
    assert found["cortex-a76 tflite: ours int8"].error == "quantize ended with 1"
    assert found["cortex-a76 onnx: default int8"].error == "onnxruntime cannot load 'default int8.onnx'."
    assert found["cortex-a76 tflite: default int8"].instructions == 4_000


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (1_000, ""),
        (1_020, ""),
        (980, ""),
        (1_021, "more instructions"),
        (979, "fewer instructions, to be recorded"),
        (None, "not counted: it broke"),
    ],
)
def test_two_per_cent_either_way(now, verdict):
    from arm_baseline import Case, Row, compare

    case = Case("cortex-a76", "tflite", "ours", "int8")
    error = "it broke" if now is None else None
    (change,) = compare([Row(case, now, error=error)], [Row(case, 1_000)])
    assert change.verdict == verdict
    (unknown,) = compare([Row(case, now, error=error)], [])
    assert unknown.verdict == ("not counted: it broke" if now is None else "not in the baseline")


def test_a_case_without_a_runtime_fails_nothing():
    from arm_baseline import Case, Row, compare

    case = Case("cortex-a76", "executorch", "ours", "int8")
    row = Row(case, error=case.lacking)
    assert [change.verdict for change in compare([row], [row]) + compare([row], [])] == ["", ""]
    # Once recorded, it must not silently get lost.
    assert compare([row], [Row(case, 1_000)])[0].verdict.startswith("not counted")


def test_baseline_is_written_and_read(tmp_path):
    from arm_baseline import load, save

    counted, path = rows(), tmp_path / "baseline.json"
    save(path, counted)
    assert load(path) == counted
    assert str(tmp_path) not in path.read_text() and "sha256" not in path.read_text().lower()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 9}, "schema_version"),
        ({"weights": "demo"}, "weights"),
        ({"size": [64, 64]}, "size"),
        ({"rows": [{"cpu": "cortex-a76"}]}, r"rows\[0\]"),
        ({"rows": 3}, "rows"),
    ],
)
def test_a_wrong_baseline_is_named(change, words, tmp_path):
    from arm_baseline import load, save

    path = tmp_path / "baseline.json"
    with pytest.raises(DataError, match=r"no baseline(.|\n)*--update"):
        load(path)
    save(path, rows())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=words):
        load(path)


def test_a_failed_row_leaves_the_recorded_one():
    from arm_baseline import CASES, Row, merge

    recorded = rows()
    new = [replace(recorded[0], instructions=7), Row(CASES[1], error="it broke"), Row(CASES[-1], error="no runtime")]
    merged = merge(new, recorded)
    assert [row.case for row in merged] == list(CASES)
    assert merged[0].instructions == 7 and merged[1] == recorded[1] and merged[2:-1] == recorded[2:-1]


def test_goals_are_told_and_fail_nothing(capsys):
    import arm_instructions

    counted = rows()
    assert arm_instructions.report(counted, counted, None) == 0
    out = capsys.readouterr().out
    assert "at most 0.25 of the default int8's: 0.210, met" in out
    assert "at most 0.5 of our float's: 0.467, met" in out
    assert arm_instructions.goal_lines([]) == []


def command(monkeypatch, tmp_path, *options, counts=fake_count) -> int:
    """main with a fake machine, and a baseline of its own."""
    import arm_instructions

    monkeypatch.setattr(arm_instructions, "open_cpu", lambda name: None)
    monkeypatch.setattr(arm_instructions.plugin_emulator().__class__, "check", lambda self: None)
    monkeypatch.setattr(arm_instructions, "count", counts)
    monkeypatch.setattr(arm_instructions, "Files", lambda *arguments: find_file)
    return arm_instructions.main(["--baseline", str(tmp_path / "baseline.json"), *options])


def test_the_command_records_compares_and_fails(monkeypatch, tmp_path, capsys):
    with pytest.raises(DataError, match="--update"):
        command(monkeypatch, tmp_path)
    assert command(monkeypatch, tmp_path, "--update") == 0
    assert command(monkeypatch, tmp_path) == 0
    capsys.readouterr()

    def slower(path: Path, cpu: str) -> InstructionCount:
        found = fake_count(path, cpu)
        return replace(found, instructions=found.instructions * 11 // 10) if path.name == "ours int8.onnx" else found

    assert command(monkeypatch, tmp_path, counts=slower) == 1
    captured = capsys.readouterr()
    assert "cortex-a76 onnx: ours int8: more instructions (+10.00%)" in captured.err
    assert "cortex-a76 tflite: ours int8" not in captured.err and "UPDATE=1" in captured.err
    assert command(monkeypatch, tmp_path, "--sides", "default", counts=slower) == 0
    # A part of the cases is held to its part of the baseline, and recorded into it.
    assert command(monkeypatch, tmp_path, "--targets", "tflite", counts=slower) == 0
    assert command(monkeypatch, tmp_path, "--targets", "onnx", "--update", counts=slower) == 0
    assert command(monkeypatch, tmp_path, counts=slower) == 0
    assert "recorded with other versions" not in capsys.readouterr().out

    def newer(path: Path, cpu: str) -> InstructionCount:
        return replace(slower(path, cpu), versions={"package": "2"})

    assert command(monkeypatch, tmp_path, counts=newer) == 0
    assert "recorded with other versions: package 1 -> 2" in capsys.readouterr().out


def test_given_files_are_counted_alone(monkeypatch, tmp_path, capsys):
    assert command(monkeypatch, tmp_path, "--files", "ours int8.tflite", "--on", "cortex-a76") == 0
    assert "1,000" in capsys.readouterr().out and not (tmp_path / "baseline.json").exists()
    with pytest.raises(UsageError, match="--files"):
        command(monkeypatch, tmp_path, "--files", "ours int8.tflite", "--update")
    with pytest.raises(UsageError, match="tflite"):
        command(monkeypatch, tmp_path, "--targets", "tflight")
    with pytest.raises(UsageError, match="default, ours"):
        command(monkeypatch, tmp_path, "--sides", "theirs")


def test_our_files_are_built_anew_unless_kept(monkeypatch, tmp_path):
    import arm_files
    from arm_baseline import Case

    commands: list[list[str]] = []

    def run_quantize(words, out: Path) -> str:
        commands.append(words)
        out.mkdir(parents=True, exist_ok=True)
        for suffix in (".tflite", ".onnx"):
            (out / f"model{suffix}").write_bytes(b"made")
        return ""

    monkeypatch.setattr(arm_files, "run_quantize", run_quantize)
    monkeypatch.setattr(arm_files, "prepare_source", lambda *arguments: arm_files.Source(Path("w"), Path("i")))
    cases = [Case(cpu, target, "ours", "int8") for cpu in ("cortex-a72", "cortex-a76") for target in ("tflite", "onnx")]
    made = [arm_files.Files(tmp_path, tmp_path / "ours", False, Progress())(case) for case in cases[:2]]
    assert [file.name for file in made] == ["model.tflite", "model.onnx"] and len(commands) == 2  # two runs
    files = arm_files.Files(tmp_path, tmp_path / "ours", False, Progress())
    assert {files(case) for case in cases} == set(made) and len(commands) == 3  # one run builds once
    words = " ".join(commands[0])
    assert "--size 512x512 --output logits" in words and "--recipe mixed" in words and "--targets tflite,onnx" in words
    kept = arm_files.Files(tmp_path, tmp_path / "ours", True, Progress())
    assert kept(cases[0]) == made[0] and len(commands) == 3
    monkeypatch.setattr(arm_files, "run_quantize", lambda words, out: "quantize: no such recipe")
    with pytest.raises(SegformerEdgeError, match="no such recipe"):
        # What an earlier run left must not be counted in its place.
        arm_files.Files(tmp_path, tmp_path / "ours", False, Progress())(cases[0])


def test_the_recorded_baseline_is_complete():
    from arm_baseline import CASES, load

    recorded = load(BENCHMARKS / "arm_instructions.json")
    assert [row.case for row in recorded] == list(CASES)
    assert all((row.instructions is None) == (row.case.lacking is not None) for row in recorded)
