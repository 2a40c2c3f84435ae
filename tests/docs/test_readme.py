"""The README and the pages in docs/ keep their promises.

Their code runs, their commands and links exist, and their tables are what the commands print.
"""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import nin_jax
from nin_jax.inference.export import export_program
from nin_jax.models.variants import variant_from_dict
from nin_jax.study.statistics import Estimate

ROOT = Path(__file__).resolve().parent.parent.parent
PATHS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PAGES = {path.name: path.read_text(encoding="utf-8") for path in PATHS}
TEXT = "\n".join(PAGES.values())


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL)


def commands():
    """Return (script, rest of the command) of every script in a code block or in inline code."""
    code = [block for page in PAGES for block in blocks(page, "(?:bash|yaml|toml)")]
    code += re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.M | re.S))
    joined = [re.sub(r"\\?\n\s*(?=-)|(?<=python)\n", " ", text) for text in code]
    return [
        found for text in joined for found in re.findall(r"scripts/(\w+)\.py\b([^\n#&;|]*)", text)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_the_python_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, names = "".join(blocks(page, "python")), {}
    saved = re.findall(r'save_safetensors\(model, "(.+)"\)', code)
    if saved:  # what the reader has
        names["state_dict"] = nin_jax.convert.to_torch(nin_jax.create_model("nin15", seed=1))
    if "nin15.jax_export" in code:  # what the command in the code's comment writes
        pretrained = nin_jax.create_model("nin15", pretrained="fashion_mnist")
        Path("nin15.jax_export").write_bytes(export_program(pretrained))
    exec(code, names)
    for file in saved:
        found = nin_jax.convert.load_safetensors(tmp_path / file)
        assert all((found[name] == value).all() for name, value in names["state_dict"].items())


def test_the_toml_is_the_variant_defined_in_python():
    names = {}
    exec(blocks("training.md", "python")[0], names)
    for block, name in zip(blocks("training.md", "toml"), ("mine", "full"), strict=True):
        assert block.startswith(f"# {name}.toml")
        assert variant_from_dict({"name": name, **tomllib.loads(block)}) == names[name]


def test_the_networks_of_the_classics_page_are_variants():
    found = {}
    for block in blocks("classics.md", "toml"):
        name, fields = block.split("\n")[0].removeprefix("# "), tomllib.loads(block)
        found[name] = variant_from_dict({"name": name.removesuffix(".toml"), **fields})
    used = set(re.findall(r"--variant (\S+\.toml)", PAGES["classics.md"]))
    assert found.keys() == used
    sides = {"nin_svhn_2013.toml": "8x8", "nin_mnist_2013.toml": "7x7"}  # the authors' last maps
    for name, variant in found.items():
        assert f"mean {sides[name]}" in nin_jax.summary(variant, image_size=variant.image_size)


def has(help_text, option):
    return re.search(rf"(?<![\w-]){option}(?![\w-])", help_text)


def test_commands_and_options_exist(script):
    names = {path.stem for path in ROOT.glob("scripts/*.py")}
    helps = {name: script(name, "--help").out for name in names}
    assert {name for name, _ in commands()} == names  # every script is explained
    for name, rest in commands():
        for option in re.findall(r"(?<!\S)--[a-z-]+", rest):
            assert has(helps[name], option), (name, option)
    for page in set(PAGES) - {"CONTRIBUTING.md", "scale.md"}:  # these name other programs' too
        for option in re.findall(r"`(--[a-z-]+)", PAGES[page]):
            assert any(has(text, option) for text in helps.values()), (page, option)


def test_shell_commands_parse():
    for page in PAGES:
        for block in blocks(page, "bash"):
            done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
            assert done.stderr == ""


def test_links_lead_to_files_and_headings():
    for path in PATHS:
        for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[path.name]):
            file, _, anchor = target.partition("#")
            linked = (path.parent / file).resolve() if file else path
            assert linked.exists(), (path.name, target)
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
                anchors = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
                assert anchor in anchors, (path.name, target)


def test_the_readme_is_short():
    assert len(PAGES["README.md"].split()) <= 1500


def test_the_results_have_the_parameters_and_macs_of_every_variant():
    cells = r"^\| `(\w+)` \|[^|]*(\| [\d,]+ \| [\d,]+ \|)"
    rows = re.findall(cells, PAGES["README.md"], re.M)
    expected = []
    for name in nin_jax.list_variants():
        _, counts = nin_jax.describe(name).split("classes, ")
        params, macs = counts.split(" parameters, ")
        expected.append((name, f"| {params} | {macs.removesuffix(' MACs')} |"))
    assert rows == expected


def test_the_accuracies_are_those_of_the_study():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.± ]*?) ?\| [\d,]+ \|", PAGES["README.md"], re.M)
    assert [name for name, _ in rows] == nin_jax.list_variants()
    results = ROOT / "benchmarks" / "results" / "study-67-long" / "results.jsonl"
    measured: dict[str, list[float]] = {}
    for run in map(json.loads, results.read_text(encoding="utf-8").splitlines()):
        if not run["change"]:
            measured.setdefault(run["variant"], []).append(run["test_accuracy"])
    estimates = {name: str(Estimate.of(values)) for name, values in measured.items()}
    assert {name: accuracy for name, accuracy in rows if accuracy} == estimates
    times = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", PAGES["README.md"], re.M))
    story = json.loads(results.with_name("study.json").read_text(encoding="utf-8"))
    costs = {
        name.split()[0]: f"{found['step_ms']:,.0f}" for name, found in story["networks"].items()
    }
    assert times == costs


def test_every_variant_is_described():
    rows = re.findall(r"^\| (`nin\w*`(?:, `\w+`)*) \| [^|]*\|$", PAGES["training.md"], re.M)
    described = [name.strip("`") for row in rows for name in row.split(", ")]
    assert described == nin_jax.list_variants()


def test_the_table_of_costs_is_what_report_prints(script):
    printed = script("report", "--all", "--format", "markdown").out
    assert printed.strip() in PAGES["accounting.md"]


def test_the_table_of_conventions_is_what_report_prints(script):
    counts = json.loads(script("report", "--all", "--in-channels", "3", "--format", "json").out)
    conventions = counts[0]["conventions"]
    names = {"MACs": "macs", "FLOPs": "flops", "ptflops": "ptflops_pytorch", "XLA": "xla"}
    rows = re.findall(r"^\| (\w+) \| ([\d,]+) \| [^|]+ \|$", PAGES["accounting.md"], re.MULTILINE)
    found = {names.get(name, name): int(count.replace(",", "")) for name, count in rows}
    assert found.keys() == {"macs", "flops", "thop", "fvcore", "ptflops_pytorch", "xla"}
    assert found == {key: conventions[key]["count"] for key in found}


def test_the_figures_of_the_study_are_those_of_its_page():
    folder = ROOT / "benchmarks" / "results" / "study-67-long"
    page = (folder / "study.md").read_text(encoding="utf-8")
    figures = re.findall(r"(?<!\| )(?<![+-])(0\.\d{4})\s±\s(0\.\d{4})", PAGES["training.md"])
    assert len(figures) == 12
    for mean, deviation in figures:
        assert f"{mean} ± {deviation}" in page
    short = (folder.parent / "study-67" / "study.md").read_text(encoding="utf-8")
    changes = re.findall(r"^\| .+ \| (0\.\d+ ± .+) \|(.*)\|$", PAGES["training.md"], re.M)
    assert len(changes) == 9
    for accuracy, difference in changes:
        cells = (accuracy, difference.strip() or "-")
        assert re.search(" +".join(rf"\| +{re.escape(cell)}" for cell in cells), short), cells
    assert "2.96 times the MACs" in page
    heads = (folder.parent / "study-100" / "study.md").read_text(encoding="utf-8")
    for figure in ("0.0016", "0.9190", "0.7708"):
        assert figure in PAGES["training.md"]
        assert figure in heads


def test_the_accuracies_of_long_runs_are_those_of_their_records():
    results = ROOT / "benchmarks" / "results"
    for card in (ROOT / "nin_jax" / "weights").glob("*.json"):
        shipped = json.loads(card.read_text(encoding="utf-8"))
        for page in ("README.md", "training.md"):
            assert f"{shipped['test_accuracy']:.4f}" in PAGES[page], (card, page)
    for run in ("paper/nin_paper-28-60000", "modern/nin_cifar10-28-60000"):
        lines = (results / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        epochs = [row for row in map(json.loads, lines) if row["kind"] == "epoch"]
        for row in (epochs[0], epochs[-1]):
            assert f"{row['test_accuracy']:.4f}" in PAGES["classics.md"], run
            assert row["dead_classes"] == 0, run


def bench_rows(folder):
    file = ROOT / "benchmarks" / "results" / folder / "results.json"
    return json.loads(file.read_text(encoding="utf-8"))["rows"]


def speeds(folder):
    """Return the cells of `nin` and `nin15` in each row of the table of speeds."""
    cells: dict[str, dict[str, str]] = {}
    for row in bench_rows(folder):
        if row["benchmark"] == "summary":
            what = {"train": "training step", "predict": "prediction"}[row["task"]]
            what += ", one image" if row["batch_size"] == 1 else f", {row['batch_size']} images"
            what += " (`Predictor(model, batch_size=1)`)" if row["batch_size"] == 1 else ""
            what += " of 67x67" if row["image_size"] == 67 else ""
            what += ", bfloat16" if row["precision"] == "bfloat16" else ""
            what += ", PyTorch at its best †" if row.get("allocator") else ""
            found = cells.setdefault(what, {"nin": "", "nin15": ""})
            found[row["variant"]] = f"{row['best_rival_over_ours']:.2f}"
    return {label: [*found.values()] for label, found in cells.items()}


def test_the_speeds_are_those_of_the_summaries():
    now, before = speeds("cpu-summary"), speeds("cpu-summary-rows")
    assert now.keys() == before.keys()
    for label, cells in now.items():
        for page, shown in (("README.md", cells), ("benchmarks.md", cells + before[label])):
            row = f"| {label} | {' | '.join(shown)} |".replace("|  |", "| |")
            assert f"{row}\n" in PAGES[page], (page, label)


def test_the_seconds_to_an_accuracy_are_those_measured():
    shown: dict[str, str] = {}
    for row in bench_rows("accuracy"):
        name = f"{row['contender'].split()[0]} {row['recipe']}"
        if "seconds" in row:
            cell = f"{row['seconds']:.0f} s"
        else:
            seconds, accuracy = re.findall(r"[\d.]+", row["note"])
            cell = f"not in {int(seconds):,} s"
            assert f"{accuracy} after those 30 minutes" in PAGES["benchmarks.md"]
        shown[name] = f"{shown.get(name, '|')} {cell} |"
        if row["target_accuracy"] == 0.9 and "over_ours" in row:
            assert f"0.90 with the same recipe, 96x96 | {row['over_ours']:.2f} |" in TEXT
    page = PAGES["benchmarks.md"]
    assert f"| nin_jax, recipe `modern` {shown['nin_jax modern']}\n" in page
    assert f"| PyTorch, recipe `modern` {shown['torch modern']}\n" in page
    assert f"| PyTorch, published recipe `d2l` {shown['torch d2l']}\n" in page


@pytest.mark.slow
def test_the_commands_for_several_devices_run(tmp_path):
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    (block,) = [block for block in blocks("scale.md", "bash") if "one()" in block]
    lines = block.splitlines()
    assert len(lines) == 3
    for line in lines:
        # Behind the suite's own flags, which compile quickly.
        command = ["bash", "-c", line.replace("XLA_FLAGS=", 'XLA_FLAGS="$XLA_FLAGS "')]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("epoch 1/1") == 1
    assert len(list(tmp_path.glob("runs/*/summary.json"))) == 3
