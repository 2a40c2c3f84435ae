"""Statistics, answers and page of a study, from made-up results."""

import csv
import io
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from scipy import stats

from nin_jax.models.variants import EXERCISE
from nin_jax.study import content, figures, page
from nin_jax.study.answers import MISSING, QUESTIONS, answers
from nin_jax.study.grid import ABLATION
from nin_jax.study.statistics import (
    Difference,
    Estimate,
    difference,
    group_rows,
    holm,
    standard_error,
)
from tests.support.study_results import everything, network, row, study, summary


def runs(variant, *accuracies, **more):
    return [row(variant, seed=i, accuracy=a, **more) for i, a in enumerate(accuracies)]


def test_intervals_are_student_t():
    found = Estimate.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert found.mean == 3
    assert found.half == pytest.approx(1.9633, abs=1e-4)  # t = 2.7764, times sqrt(0.5)
    assert Estimate.of([1.0]).half is None


def test_differences_are_paired_by_seed():
    a, b = {0: 0.90, 1: 0.80, 2: 0.86, 7: 0.1}, {0: 0.88, 1: 0.79, 2: 0.845, 8: 0.9}
    found = difference(a, b)
    assert found is not None
    theirs = stats.ttest_rel([a[0], a[1], a[2]], [b[0], b[1], b[2]]).confidence_interval(0.95)
    assert found.half is not None
    assert found.mean - found.half == pytest.approx(theirs.low)
    assert found.mean + found.half == pytest.approx(theirs.high)
    assert difference({0: 0.5}, {1: 0.5}) is None


@pytest.mark.parametrize(
    ("accuracies", "finding"),
    [
        ([0.95, 0.96, 0.97], "more"),
        ([0.85, 0.84, 0.83], "less"),
        ([0.91, 0.89, 0.90], r"no difference found, at most 0\.0248"),
        ([0.91], "one seed, no interval"),
    ],
)
def test_the_finding_follows_from_the_interval(accuracies, finding):
    found = difference(dict(enumerate(accuracies)), dict.fromkeys(range(3), 0.9))
    assert found is not None
    assert re.fullmatch(finding, found.finding)


def test_the_p_value_is_that_of_a_paired_t_test():
    a, b = {0: 0.91, 1: 0.93, 2: 0.92}, {0: 0.90, 1: 0.905, 2: 0.91}
    found = difference(a, b)
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_rel([*a.values()], [*b.values()]).pvalue)
    assert (found.finding in ("more", "less")) == (found.p < 0.05)
    assert Difference.of([0.1]).p == 1.0


def test_holms_correction_stops_at_the_first_that_fails():
    """The limits are 0.05 / 3, 0.05 / 2 and 0.05."""
    assert holm({"a": 0.04, "b": 0.01, "c": 0.024}) == ["b", "c", "a"]
    assert holm({"a": 0.04, "b": 0.01, "c": 0.026}) == ["b"]
    assert holm({"a": 0.017, "b": 0.9}) == ["a"]
    assert holm({}) == []


def test_the_notes_say_which_differences_remain_if_corrected():
    rows = [
        row(name, accuracy=accuracy + (0.001 * seed if name == "nin_one_1x1" else 0), seed=seed)
        for name, accuracy in (("nin", 0.9), ("nin_one_1x1", 0.8), ("nin_3x3", 0.9))
        for seed in range(3)
    ]
    only_one_complete = study(rows).notes[0]
    assert "Holm" not in only_one_complete
    rows += [row("nin_three_1x1", accuracy=0.9, seed=seed) for seed in range(3)]
    found = study(rows).notes[0]
    assert "Holm's correction for the 3 comparisons" in found
    assert "significant at 5 %: nin_one_1x1 against nin. " in found


def test_a_group_has_all_seeds_and_collapsed_runs_too():
    dead = [row(seed=1, accuracy=0.1, dead_classes=[0, 2])]
    (group,) = summary([row(seed=0, accuracy=0.9), *dead])
    assert group.accuracy.mean == pytest.approx(0.5)
    assert group.accuracy.half == pytest.approx(12.7062 * 0.4, rel=1e-4)
    assert (group.collapsed, group.reached_80, group.dead) == (1, [2], [0, 2])
    first, second, third = group.per_class
    assert second is None
    assert (first and first.mean, third and third.mean) == (pytest.approx(0.5), 1)
    assert group.training_minutes == pytest.approx(2 * 2 * 640 / 60_000)  # 100 images, 64 a step


def test_every_question_is_answered_with_numbers_of_the_study():
    found = answers(summary(everything()))
    assert len(found) == len(QUESTIONS) == 6
    for answer in found.values():
        assert answer.finding != MISSING
        assert answer.finding.endswith(".")
        assert re.search(r"\d", answer.finding)
    first, *_, last = found.values()
    assert "0.0011" in first.finding  # nin_one_1x1's gain in the mean over seeds
    rows = {line[0]: line for line in last.tables[0].rows}
    assert str(rows["nin15"][1]).startswith("0.5177")


def test_findings_are_more_less_or_at_most():
    rows = runs("nin", 0.90, 0.91, 0.92) + runs("nin_one_1x1", 0.88, 0.892, 0.899)
    rows += runs("nin_three_1x1", 0.901, 0.909, 0.921) + runs("nin_3x3", 0.92, 0.931, 0.938)
    one, wide, *_ = answers(summary(rows)).values()
    assert one.finding == (
        "One 1x1 convolution per block is less accurate than two (by 0.0197 ± 0.0038); no "
        "difference was found between three and two (at most 0.0032)."
    )
    assert wide.finding.startswith(
        "A block with 3x3 convolutions is more accurate than one with 1x1 convolutions (by 0.0197"
    )


def test_one_seed_gives_no_interval():
    one, *_ = answers(summary([r for r in everything() if r["seed"] == 0])).values()
    assert one.finding.count("one seed, no interval") == 2


def test_other_image_sizes_are_shown_for_networks_that_take_them():
    found = answers(summary(everything()))
    (answer,) = (a for question, a in found.items() if "fully connected" in question)
    assert "with test images of 101x101 in place of 67x67, the accuracy" in answer.finding
    assert "to 0.3000, and the linear layer cannot take them" in answer.finding
    sizes = answer.tables[1]
    assert list(sizes.headings)[1:] == ["67x67 (training)", "101x101"]
    nin, linear = sizes.rows
    assert nin[2] is not None
    assert linear[2] is None
    assert "The mean of a single pixel is that pixel" in answer.text


def test_dead_classes_are_counted_by_recipe():
    rows = everything()
    for each in rows:
        if each["variant"] == "nin" and each["recipe"] == "d2l" and each["seed"] < 2:
            each["dead_classes"] = [0, 2]
    found = answers(summary(rows))
    (answer,) = (a for question, a in found.items() if "384" in question)
    assert "the single step left dead classes in 2 of 3 runs (d2l)" in answer.finding
    assert ["nin", "d2l", "3", "2", "1.33", "0"] in answer.tables[1].texts
    assert ["nin", "modern", "3", "0", "0.00", "0"] in answer.tables[1].texts
    assert "modern: ReLU on the logits" in [line[1] for line in answer.tables[1].rows]


def test_the_heads_are_also_compared_without_dropout():
    change = {"change": "dropout=0.0", "settings": {"lr": 0.01, "dropout": 0.0}}
    rows = [row("nin", seed=1, accuracy=0.7, change="lr=0.06"), *everything()]
    assert "without dropout" not in list(answers(summary(rows)).values())[4].finding
    rows += runs("nin_gradual", 0.90, 0.91, 0.92, **change)
    assert "without dropout" not in list(answers(summary(rows)).values())[4].finding  # no nin
    rows += runs("nin", 0.90, 0.909, 0.921, **change)
    answer = list(answers(summary(rows)).values())[4]
    assert "; without dropout, no difference was found between a head of three steps" in (
        answer.finding
    )
    assert [table.headings[0] for table in answer.tables] == [
        "network",
        "network, dropout=0.0",
        "network",
    ]
    assert [line[0] for line in answer.tables[1].rows] == ["nin", "nin_gradual"]


def test_without_modern_runs_the_answers_use_the_other_recipe():
    rows = [r for r in everything() if r["recipe"] == "d2l" or r["change"]]
    assert all(answer.finding != MISSING for answer in answers(summary(rows)).values())


def test_missing_runs_are_reported():
    found = [answer.finding == MISSING for answer in answers(summary([row("nin")])).values()]
    assert found == [True, True, True, False, True, True]


def test_collapsed_runs_are_counted_by_learning_rate():
    def at(lr, seed, accuracy, change=""):
        return row("nin", "d2l", seed, accuracy, change, settings={"lr": lr})

    rows = [at(0.1, 0, 0.1), at(0.1, 1, 0.5), at(0.05, 0, 0.5, "lr=0.05")]
    rows += [at(0.1, 0, 0.1, "lr=0.1, init=he")]  # not the recipe with only another rate
    table = study(rows).learning_rate_table()
    assert [list(line) for line in table.rows] == [
        ["d2l", "nin", "0.05", 1, 0],
        ["d2l", "nin", "0.1", 2, 1],
    ]


def test_the_budget_of_each_recipe_is_stated():
    curves: dict[str, Any] = {
        key: [0.5] for key in ("train_loss", "test_loss", "test_accuracy_by_epoch")
    }
    rows = [row(), row(recipe="d2l", seed=4, epochs=1, train_images=7, test_images=2000, **curves)]
    first, second, *_ = content.what_was_run(study(rows))
    assert "Recipe modern: fashion_mnist at 67x67, 100 training images, 2 epochs; 1 run," in first
    assert "Recipe d2l: fashion_mnist at 67x67, 7 training images, 1 epoch; " in second
    assert "1 seed (4); evaluated on 2,000 test images" in second
    assert standard_error(0.5, 2000) == pytest.approx(0.01118, abs=1e-5)
    assert "the best accuracy, 0.5000, has a binomial standard error of 0.0112" in second


class Page(HTMLParser):
    """Collects the addresses in a page, and checks that its tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br", "link", "source"):
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "srcset", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.slow
def test_the_page_is_complete_and_fetches_nothing(whole_page):
    text = whole_page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert not parsed.open
    assert parsed.sources
    assert all(source.startswith("data:image/") for source in parsed.sources)
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r'src(set)?="[^"]*"', "", text))
    for question in QUESTIONS:
        assert question in text
    reduced = "100 of 60,000 training images; 20 of 10,000 test images; 2 of 10 epochs"
    assert f"modern are reduced: {reduced}; images of 67x67 in place of 224x224." in text


def test_the_page_escapes_text_from_files():
    evil = "<script>alert(1)</script>\"'&"
    rows = [
        row(evil, dataset=evil, device=evil, change=c, versions={evil: evil}) for c in ("", evil)
    ]
    picture = content.Picture(b"", evil)
    made = content.Study(rows, summary(rows), [evil] * 3, [["python", evil]], [picture])
    text = page.as_html(made)
    assert "alert(1)</script>" not in text
    assert text.count("<script>") == 1
    assert not Page(text).open


def test_without_times_the_figure_is_over_multiply_adds():
    drawn = [
        figures.accuracy_against_time(group_rows([row()], {"nin modern": costs}))
        for costs in (network(), network(step_ms=None))
    ]
    assert "training step" in drawn[0]
    assert "multiply-adds" not in drawn[0]
    assert "multiply-adds" in drawn[1]
    rows, costs = [row(), row("nin15")], {"nin modern": network(), "nin15 modern": network()}
    costs["nin15 modern"]["step_ms"] = None  # one that is not timed yet is drawn too
    both = figures.accuracy_against_time(group_rows(rows, costs))
    assert "multiply-adds" in both


@pytest.mark.parametrize("losses", [[None, 1.0], [None, None]], ids=str)
def test_missing_losses_are_gaps_in_the_curves(losses):
    drawn = figures.learning_curves(summary([row(), row(seed=1, train_loss=losses)]))
    assert drawn.startswith("<svg")
    assert figures.LIGHT in drawn  # which a dark page replaces


def test_markdown_and_csv_hold_the_tables():
    made = study(everything())
    rows = list(csv.DictReader(io.StringIO(page.as_csv(made.groups))))
    assert len(rows) == len(made.groups) == 2 * len(EXERCISE) + len(ABLATION)
    assert rows[0]["parameters"] == "1000000"
    assert (rows[0]["training MiB"], rows[0]["prediction MiB"]) == ("1.0", "")
    assert rows[0]["images/s"] == "100.0"
    assert (rows[0]["accuracy"], rows[0]["± 95 %"]) == ("0.51", "0.024841")
    text = page.as_markdown(made)
    text = re.sub(" +", " ", text)
    assert "| nin | modern | 0.5100 ± 0.0248 | 3 | 0 | 0 | 0 | - |" in text
    assert all(f"\n| {change} | 0.4000 ± 0.0000 |" in text for change in ABLATION)
    assert all(question in text for question in QUESTIONS)
