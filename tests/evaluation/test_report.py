"""The report: self-contained, parsable, escaped, every figure with interval and n, charts with words and axes."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from stage_folders import QUICK, Folders

from unmask.evaluation.charts import Axis, Bar, Plot, interval_rows, nice_axis
from unmask.evaluation.report import escape_markdown
from unmask.evaluation.wording import full, interval, number, tied
from unmask.schemas import (
    FEATURES,
    ROBUSTNESS,
    SAMPLES,
    VIDEO_SCORES,
    DatasetInfo,
    EnsembleInfo,
    Estimate,
    EvaluationInfo,
    ExtractionInfo,
    FusionInfo,
    read_table,
    write_table,
)

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
EVIL = "<script>alert(1)</script>"


class Parsed(HTMLParser):
    """Checks that elements nest, and keeps what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.estimates: list[str] = []
        self.words: list[str] = []
        self._estimate_depth: int | None = None
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if dict(attrs).get("class") == "estimate":
            self._estimate_depth = len(self.open)
            self.estimates.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}> in line {self.getpos()[0]}"
        if self._estimate_depth == len(self.open):
            self._estimate_depth = None
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self._estimate_depth is not None:
            self.estimates[-1] += data
        if "style" not in self.open:
            self.words.append(data)

    def attributes(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").replace("\u2060", "").split())


@pytest.fixture(scope="module")
def html(folders: Folders) -> str:
    return (folders.root / "evaluation" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Parsed:
    return Parsed(html)


def test_nothing_outside_the_file_is_referred_to(html: str, page: Parsed) -> None:
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert not page.attributes("script", "link", "iframe", "object", "embed", "base")
    for attributes in page.attributes("img"):
        assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
    for attributes in page.attributes("a"):
        assert str(attributes["href"]).startswith("#")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_links_of_the_contents_lead_somewhere(page: Parsed) -> None:
    places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    targets = {str(attributes["href"]).removeprefix("#") for attributes in page.attributes("a")}
    assert targets <= places
    assert len(targets) >= 11


def test_every_figure_has_its_interval_and_n(html: str, page: Parsed) -> None:
    assert len(page.estimates) > 60
    for text in page.estimates:
        assert re.search(r"\d(–| to )\S*\d|no interval", text.replace("\u2060", "")), text
        assert re.search(r"n = \d+", text.replace("\u00a0", " ")), text
    tiles = re.findall(r'class="tile">(.*?)</div>', html.replace("\u00a0", " "), re.S)
    assert len(tiles) == 4
    assert all("n = " in tile for tile in tiles)


def test_every_chart_has_words_for_who_cannot_see_it_and_axes(html: str, page: Parsed) -> None:
    charts = re.findall(r'<svg class="chart".*?</svg>', html, re.S)
    assert len(charts) >= 14
    for chart in charts:
        title, words = (re.search(rf"<{tag}>(.*?)</{tag}>", chart, re.S) for tag in ("title", "desc"))
        assert title is not None
        assert title.group(1).strip()
        assert words is not None
        assert re.search(r"\d", words.group(1)), title.group(1)
        assert 'role="img"' in chart
        assert chart.count('class="axis"') >= 1
        assert "nan" not in chart.lower()
        assert "inf" not in re.sub(r"<title>.*?</desc>", "", chart, flags=re.S).lower()
    for image in page.attributes("img"):
        assert image["alt"]


def test_all_sections_stand_in_the_order_of_a_decision(page: Parsed) -> None:
    places = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert places == [
        "summary",
        "data",
        "training",
        "quality",
        "probabilities",
        "decisions",
        "parts",
        "robustness",
        "combination",
        "features",
        "mistakes",
        "failures",
        "configuration",
    ]


def test_the_lead_says_the_figures_of_the_document(folders: Folders, page: Parsed) -> None:
    info = EvaluationInfo.load(folders.root / "evaluation" / "metrics.json")
    auc = info.video["fusion"]["roc_auc"]
    assert f"ROC AUC {auc.value:.3f}, 95 % interval {auc.low:.3f}–{auc.high:.3f}, on 23 videos" in page.text
    (_, fp), (_, tp) = info.confusion
    assert f"found {tp} of 15 fakes" in page.text
    assert f"false alarm for {fp} of 8 reals" in page.text
    assert "1 of 24 videos of the test split: no face (1)" in page.text
    for warning in info.warnings:
        assert " ".join(warning.split()) in page.text


def test_failures_of_both_stages_are_listed_with_what_was_seen(page: Parsed) -> None:
    assert "3 files could not be used" in page.text
    assert "ingest studio/real/broken_0.mp4 truncated 151 of 300 frames decoded" in page.text
    assert "no face a face in 0 of 30 examined frames" in page.text


def test_mistakes_show_their_crops_and_what_pushed_them(folders: Folders, page: Parsed) -> None:
    info = EvaluationInfo.load(folders.root / "evaluation" / "metrics.json")
    (_, false_alarms), (missed, _) = info.confusion
    shown = min(false_alarms, 6) + min(missed, 6)
    assert shown > 0
    pictures = page.attributes("img")
    assert len(pictures) == 2 * shown
    data = base64.b64decode(str(pictures[0]["src"]).partition(",")[2])
    assert simplejpeg.decode_jpeg(data).shape == (112, 112, 3)
    assert re.search(r"pushed towards (fake|real) \([+-]\d", page.text)


def test_health_is_explained_from_the_catalogue(page: Parsed) -> None:
    from unmask.features import CATALOGUE

    for name in ("quality.blur", "art.texture", "temp.rppg"):
        assert CATALOGUE[name].title in page.text
        assert CATALOGUE[name].meaning in page.text
    assert "Not measurable on 20 % of clips" in page.text


def test_markup_in_names_is_escaped_everywhere(copied: Folders, tmp_path: Path) -> None:
    samples = read_table(copied.dataset / "samples.parquet", SAMPLES).to_pandas()
    samples["uri"] = "/media/drawn/" + EVIL + samples["sample_id"] + ".mp4"
    samples["source"] = f"{EVIL}|src"
    samples.loc[samples["label"] == 1, "manipulation"] = f'{EVIL}" onload="x'
    samples["compression"] = EVIL + samples["compression"].fillna("x")
    samples["reason"] = samples["reason"].where(samples["reason"].isna(), f"{EVIL}: {EVIL}")
    write_table(copied.dataset / "samples.parquet", samples, SAMPLES)
    features = read_table(copied.features / "features.parquet", FEATURES).to_pandas()
    features["reason"] = features["reason"].where(features["reason"].isna(), f"{EVIL}: {EVIL}")
    write_table(copied.features / "features.parquet", features, FEATURES)
    for path, kind, values in (
        (copied.dataset / "dataset.json", DatasetInfo, {"name": EVIL, "warnings": [EVIL]}),
        (copied.ensemble / "ensemble.json", EnsembleInfo, {"decision": EVIL}),
        (copied.fusion / "fusion.json", FusionInfo, {"decision": EVIL}),
        (copied.features / "extraction.json", ExtractionInfo, {"extractor_version": EVIL}),
    ):
        kind.load(path).model_copy(update=values).save(path)
    copied.evaluate(tmp_path / "out")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert html.count("&lt;script&gt;alert(1)") > 20
    assert "<script" not in html
    assert not Parsed(html).attributes("script")
    assert not any("onload" in attributes for _, attributes in Parsed(html).elements)
    markdown = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert "&lt;script&gt;" in markdown


def test_the_summary_is_markdown_with_the_same_figures(folders: Folders) -> None:
    text = (folders.root / "evaluation" / "summary.md").read_text(encoding="utf-8")
    info = EvaluationInfo.load(folders.root / "evaluation" / "metrics.json")
    assert text.startswith("# Evaluation of “drawn faces”\n\n**Not ")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0] == "| figure | fusion | ensemble | meso4 | meso4-b |"
    auc = next(line for line in rows if line.startswith("| ROC AUC"))
    assert full(info.video["fusion"]["roc_auc"]) in auc
    columns = {line.count("|") for line in rows if line in rows[: 1 + 12]}
    assert columns == {6}
    lines = text.splitlines()
    header = lines.index(rows[0])
    assert lines[header + 1] == "|---|---|---|---|---|"
    assert lines[header + 2].startswith("| ROC AUC")


def test_a_clip_name_cannot_break_a_markdown_table() -> None:
    assert escape_markdown("a|b\n# `c` <b>") == "a\\|b # \\`c\\` &lt;b&gt;"


def test_a_good_ranking_with_many_false_alarms_is_not_called_good(copied: Folders, tmp_path: Path) -> None:
    """The first sentence must not praise a detector that calls every real fake."""
    path = copied.fusion / "scores.parquet"
    rows = read_table(path, VIDEO_SCORES).to_pandas()
    # Rising within each class, but for one real above the lowest fakes: a perfect ranking has no bootstrap interval.
    rank = rows["label"] + np.linspace(0, 0.5, len(rows))
    test = rows["split"] == "test"
    rank[rows.index[test & (rows["label"] == 0)][-1]] = rank[test & (rows["label"] == 1)].nsmallest(2).mean()
    scored = rows["probability"].notna()
    rows["group_id"] = rows["sample_id"]
    for low, high, expected in (
        (0.5, 0.9, "ranks fakes above reals well .*but at the threshold in use it calls 100 % of reals fake"),
        (0.05, 0.4, "ranks fakes above reals well .*but at the threshold in use it finds only 0 % of fakes"),
        (-0.25, 0.9, "Fit for media like these: it tells fakes from reals well"),
    ):
        probability = (low + (high - low) * rank / 1.5).clip(0, 1)
        write_table(path, rows.assign(probability=probability.where(scored)), VIDEO_SCORES)
        copied.evaluate(tmp_path / "out", QUICK.model_copy(update={"perturbations": (), "attacks": ()}))
        text = (tmp_path / "out" / "summary.md").read_text(encoding="utf-8")
        assert re.search(expected, text), text[:300]


@pytest.mark.slow
def test_a_report_without_extras_stands(copied: Folders, tmp_path: Path) -> None:
    """No damage, no used fusion, no candidates, no health, no curves: sections say so instead of breaking."""
    from unmask.schemas import DetectorInfo

    for path, kind, values in (
        (copied.ensemble / "ensemble.json", EnsembleInfo, {"candidates": {}}),
        (copied.fusion / "fusion.json", FusionInfo, {"used": False, "importance": {}, "decision": "Too few samples."}),
        (copied.features / "extraction.json", ExtractionInfo, {"health": []}),
        *((folder / "detector.json", DetectorInfo, {"curve": []}) for folder in copied.trained),
    ):
        kind.load(path).model_copy(update=values).save(path)
    copied.evaluate(tmp_path / "out", QUICK.model_copy(update={"perturbations": (), "attacks": ()}))
    page = Parsed((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "No damage was asked for" in page.text
    assert "Too few samples." in page.text
    assert "meso4 has no training curve" in page.text
    assert "No feature was measured" in page.text


def test_words_of_figures() -> None:
    estimate = Estimate(value=0.8731, low=0.81, high=0.9204, n=38)
    assert full(estimate) == "0.873 (0.810–0.920, n = 38)"
    assert full(estimate, "%") == "87 % (81–92 %, n = 38)"
    assert full(Estimate(value=None, n=0)) == "undefined (no interval, n = 0)"
    assert interval(Estimate(value=1.0, n=4)) == "no interval"
    assert interval(Estimate(value=-0.1, low=-0.25, high=0.05, n=4)) == "-0.250 to 0.050"
    assert number(0.997, "%") == "99.7 %"
    assert number(1.0, "%") == "100 %"
    assert number(0.99999, "%") == ">99.9 %"
    assert number(1e-6, "%") == "<0.1 %"
    assert number(0.0, "%") == "0 %"
    assert interval(Estimate(value=0.5, low=1e-9, high=1 - 1e-9, n=6), "%") == "<0.1 to >99.9 %"
    assert tied("5 % of n = 3, 0.1–0.2") == "5\u00a0% of n\u00a0=\u00a03, 0.1\u2060–\u20600.2"


def test_axes_hold_their_values_with_round_ticks() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values = rng.normal(0, 10.0 ** rng.integers(-4, 5), rng.integers(1, 9)).tolist()
        axis = nice_axis("x", values)
        assert axis.low <= min(values)
        assert max(values) <= axis.high
        assert 2 <= len(axis.ticks) <= 8
    assert nice_axis("x", [0, 7], from_zero=True).ticks == (0, 2, 4, 6, 8)
    assert nice_axis("x", [3.0, 3.0]).high > 3


def test_places_in_a_drawing_follow_the_axes() -> None:
    plot = Plot("t", "d", Axis("x", 0, 1, (0, 1)), Axis("y", 0, 1, (0, 1)))
    assert (plot.px(0), plot.px(1)) == (plot.left, 360 - plot.right)
    assert plot.py(0) > plot.py(0.5) > plot.py(1) == plot.top
    svg = interval_rows("t", "d", [Bar("<b>", 0.5, 0.2, 1.7, "0.5 & more")], Axis("x", 0, 1, (0, 1)), 0.5)
    assert "&lt;b&gt;" in svg
    assert "0.5 &amp; more" in svg


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_in_light_and_dark(html: str) -> None:
    """WCAG 2.1 AA: 4.5 to 1 for text, 3 to 1 for lines and signs."""
    themes = [
        dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", html, re.S)
    ]
    light, dark = (theme for theme in themes if "paper" in theme)
    for theme in (light, dark):
        for text in ("ink", "soft"):
            assert min(_contrast(theme[text], theme[ground]) for ground in ("paper", "panel")) >= 4.5, text
        for tone in ("good", "weak", "bad"):
            assert _contrast(theme[tone], theme[f"{tone}-bg"]) >= 4.5, tone
            assert _contrast(theme["ink"], theme[f"{tone}-bg"]) >= 4.5, tone
        assert _contrast(theme["weak"], theme["paper"]) >= 4.5
        assert _contrast(theme["c0"], theme["paper"]) >= 4.5  # links
        for place in range(8):
            assert _contrast(theme[f"c{place}"], theme["paper"]) >= 3, place


def test_attacks_are_drawn_for_each_network(page: Parsed) -> None:
    for name in ("meso4", "meso4-b"):
        assert f"One-step attack (FGSM) on {name}" in page.text
        assert f"The attack knew {name} alone" in page.text


def test_damage_and_attacks_are_told_with_rates_at_the_threshold(folders: Folders, page: Parsed) -> None:
    table = read_table(folders.root / "evaluation" / "robustness.parquet", ROBUSTNESS).to_pandas()
    ensemble = table.loc[table["system"] == "ensemble"]
    worst = ensemble.loc[(ensemble["perturbation"] == "gaussian_blur") & (ensemble["severity"] == 5)]
    figures = worst.set_index("metric")["value"]
    markdown = (folders.root / "evaluation" / "summary.md").read_text(encoding="utf-8")
    (row,) = (line for line in markdown.splitlines() if line.startswith("| Gaussian blur, severity 5 of 5"))
    told = [cell.split(" (")[0] for cell in row.split(" | ")[1:]]
    assert told == [
        f"{figures['roc_auc']:.3f}",
        f"{figures['roc_auc_change']:.3f}",
        f"{100 * figures['tpr']:.0f} %",
        f"{100 * figures['fpr']:.0f} %",
    ]
    for words in ("Gaussian blur, severity 5 of 5", "FGSM on meso4, 4 of 255 levels", "against undamaged"):
        assert words in page.text
    assert "## Operating points" in markdown
    assert "## Combination" in markdown
