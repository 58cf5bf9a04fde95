"""The report: one HTML file that needs nothing else, and a short Markdown summary."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from unmask import __version__, metrics
from unmask.config import EvaluateConfig
from unmask.evaluation import drawings
from unmask.evaluation.attacks import ATTACKS
from unmask.evaluation.charts import Axis, Chart, share_axis
from unmask.evaluation.cross_table import cross_html
from unmask.evaluation.figures import FIGURES
from unmask.evaluation.fusion_findings import AblationFinding, measure_ablations, measure_certainty, measure_rules
from unmask.evaluation.mistakes import hardest_mistakes, place_of
from unmask.evaluation.perturbations import PERTURBATIONS
from unmask.evaluation.results import Results
from unmask.evaluation.summary import noun, summarise
from unmask.evaluation.wording import Unit, full, interval, number, readable, tied
from unmask.features import CATALOGUE
from unmask.schemas import CrossDatasetInfo, DetectorInfo, Estimate, FusionInfo, InputWeight

MAX_FAILURES = 200
ABLATION_TITLES = {
    "full": "everything",
    "without_quality": "no quality measures",
    "without_detectors": "features alone",
    "without_features": "networks alone",
}
RULE_TEXTS = {
    "feedback": ("Users' feedback", "Inputs that users' verdicts bore out count more, others less."),
    "artefact_scale": ("Calm motion", "Traces in single frames count less where the motion looks natural."),
    "real_evidence": ("Camera evidence", "Several strong signs of a camera hold the probability down."),
}
METHOD_TEXTS = {
    "fusion": "networks and features together, fitted on calib",
    "recalibrated": "the networks alone, recalibrated on calib",
    "ensemble": "the networks alone",
    "fallback": "networks and features averaged by written weights",
}
POINT_TEXTS = {
    "max_f1": ("best F1", "balances right alarms against missed fakes"),
    "youden": ("best balance", "widest gap between fakes found and false alarms (Youden)"),
    "target_fpr": ("few false alarms", "most fakes found while false alarms keep to their target"),
    "fixed_precision": ("sure alarms", "most fakes found while so many alarms are right as was asked for"),
}
PACKAGES = (
    "numpy",
    "scipy",
    "pandas",
    "pyarrow",
    "torch",
    "timm",
    "scikit-learn",
    "optuna",
    "av",
    "opencv-python-headless",
)
SPLITS = ("train", "val", "calib", "test")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: What it shows.
        headers: Of the columns.
        rows: Of cells.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def render_html(results: Results, config: EvaluateConfig, seed: int, cross: CrossDatasetInfo | None = None) -> str:
    """Write the report.

    Args:
        results: The findings.
        config: Of the stage.
        seed: Of the stage.
        cross: What `unmask cross-dataset` found, to be shown beside them; None when it was not run.

    Returns:
        An HTML document without references to anything outside it.
    """
    environment = _environment(autoescape=True)
    environment.filters |= {"prose": prose_html, "estimate": estimate_html, "inline": inline_html, "tied": tied}
    return environment.get_template("report.html").render(**_context(results, config, seed, cross))


def render_markdown(results: Results, config: EvaluateConfig, seed: int) -> str:
    """Write the summary.

    Args:
        results: The findings.
        config: Of the stage.
        seed: Of the stage.

    Returns:
        Markdown text.
    """
    environment = _environment(autoescape=False)
    environment.filters["md"] = escape_markdown
    text = environment.get_template("summary.md").render(
        summary=summarise(results),
        results=results,
        inputs=results.inputs,
        figures=FIGURES,
        full=full,
        readable=readable,
        left=left_of_ensemble(results),
        failures=_failures(results),
        versions=_versions(),
        seed=seed,
        resamples=config.resamples,
    )
    return text.rstrip() + "\n"


def _environment(*, autoescape: bool) -> Environment:
    # Escaping is off for Markdown only, where the filter `md` does it.
    environment = Environment(
        loader=PackageLoader("unmask.evaluation"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["readable"] = readable
    return environment


def escape_markdown(text: object) -> str:
    """Keep text from being read as HTML, as a table, or as emphasis by a Markdown renderer."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_|[]":
        escaped = escaped.replace(sign, f"\\{sign}")
    return " ".join(escaped.split())


def prose_html(text: object) -> Markup:
    """Write a sentence: what belongs together stays on one line, and what stands in backticks is code.

    Args:
        text: Plain text.

    Returns:
        HTML.
    """
    return Markup(re.sub(r"`([^`<>]+)`", r"<code>\1</code>", str(escape(tied(str(text))))))


def estimate_html(estimate: Estimate, unit: Unit = "") -> Markup:
    """Write a figure with its interval and n.

    Args:
        estimate: The figure.
        unit: ``%`` writes a share as per cent.

    Returns:
        HTML of one inline element.
    """
    return _fill('<b>{value}</b> <span class="ci">{interval}</span> <span class="n">{n}</span>', estimate, unit)


def inline_html(estimate: Estimate, unit: Unit = "") -> Markup:
    """Write a figure within a sentence, its interval and n in brackets.

    Args:
        estimate: The figure.
        unit: ``%`` writes a share as per cent.

    Returns:
        HTML of one inline element.
    """
    return _fill('<b>{value}</b> (<span class="ci">{interval}</span>, <span class="n">{n}</span>)', estimate, unit)


def _fill(template: str, estimate: Estimate, unit: Unit) -> Markup:
    inside = Markup(template).format(
        value=tied(number(estimate.value, unit)), interval=tied(interval(estimate, unit)), n=tied(f"n = {estimate.n}")
    )
    return Markup('<span class="estimate" title="{}">{}</span>').format(estimate.method, inside)


def _context(results: Results, config: EvaluateConfig, seed: int, cross: CrossDatasetInfo | None) -> dict[str, Any]:
    alarms, missed = hardest_mistakes(results)
    ablations = measure_ablations(results.inputs, config.resamples, seed)
    return {
        "summary": summarise(results),
        "results": results,
        "inputs": results.inputs,
        "figures": FIGURES,
        "readable": readable,
        "n_test": noun(results, len(results.headline.labels)),
        "data_tables": _data_tables(results),
        "training": [chart for one in results.inputs.detectors for chart in drawings.training(one.info)],
        "untrained": [one.info.name for one in results.inputs.detectors if not one.info.curve],
        "ranking": _ranking_charts(results),
        "probability": _probability_charts(results),
        "candidates": _candidates(results),
        "ablations": ablations,
        "ablation_charts": _ablation_charts(ablations),
        "ablation_titles": ABLATION_TITLES,
        "parts_table": _parts_table(results),
        "cross": Markup(cross_html(cross)) if cross else "",
        "rules": measure_rules(results.inputs),
        "rule_texts": RULE_TEXTS,
        "certainty": measure_certainty(results.inputs),
        "point_texts": POINT_TEXTS,
        "default_confusion": metrics.confusion(results.headline.labels, results.headline.probabilities, 0.5),
        "attacks": drawings.attacks(results.attacks.table, [system.name for system in results.systems]),
        "slices": _slice_charts(results),
        "left": left_of_ensemble(results),
        "heard": [one.info.name for one in results.inputs.seen_by("audio").detectors],
        "damage": drawings.robustness(results.robustness.table, [system.name for system in results.systems]),
        "catalogue": CATALOGUE,
        "input_title": input_title,
        "importance": _importance(results),
        "alarms": alarms,
        "missed": missed,
        "failures": _failures(results),
        "unscored": tuple((readable(code), str(n)) for code, n in results.unscored.items()),
        "training_table": _training_table(results),
        "configuration": _configuration(results, config, seed),
        "versions": _versions(),
    }


def _ranking_charts(results: Results) -> list[Chart]:
    named = {name: figures["roc_auc"] for name, figures in results.video.items()}
    return [
        drawings.roc(results.systems, results.video, results.point),
        drawings.precision_recall(results.systems, results.video),
        drawings.estimates(
            "ROC AUC by system",
            "Overlapping intervals do not prove that two systems are equal, nor do apart ones say why they differ.",
            named,
            share_axis("ROC AUC"),
            reference=0.5,
        ),
    ]


def _probability_charts(results: Results) -> list[Chart]:
    if not len(results.headline.labels):
        return []
    return [
        drawings.reliability(results.headline, results.video["fusion"]),
        drawings.histogram(results.headline, results.point.threshold),
        drawings.thresholds(results.headline, results.points, results.point.name),
    ]


def _candidates(results: Results) -> list[Chart]:
    """Draw what the ways to weigh the networks reach, and their gains over equal weights."""
    ensemble = results.inputs.ensemble
    charts = []
    if ensemble.candidates:
        charts.append(
            drawings.estimates(
                "Ways to weigh the networks, on calib",
                "Cross-validated on the calibration split, not on test.",
                {readable(name): estimate for name, estimate in ensemble.candidates.items()},
                share_axis("ROC AUC"),
                reference=0.5,
                style=2,
            )
        )
    if ensemble.gains:
        named = {readable(name): estimate for name, estimate in ensemble.gains.items()}
        caption = "On the same samples of calib. A gain is real only if its whole interval lies to the right of 0."
        charts.append(drawings.gains(named, caption))
    return charts


def _ablation_charts(found: Sequence[AblationFinding]) -> list[Chart]:
    """Draw what fusion is worth without families of its inputs, on calib and on test."""
    if not found:
        return []
    calib = {ABLATION_TITLES.get(one.name, readable(one.name)): one.calib for one in found}
    test = {ABLATION_TITLES.get(one.name, readable(one.name)): one.test for one in found}
    axis = share_axis("ROC AUC")
    told = "Each was fitted on calib by itself and is judged there on folds that it did not see."
    return [
        drawings.estimates("Without some of the inputs, on calib", told, calib, axis, reference=0.5, style=2),
        drawings.estimates("Without some of the inputs, on test", "The same fits on test.", test, axis, reference=0.5),
    ]


def _slice_charts(results: Results) -> list[Chart]:
    explained = {
        "manipulation": "Fakes of each kind against all reals of test.",
        "source": "Each source by itself; undefined where it holds one class only.",
        "compression": "Each compression by itself; undefined where it holds one class only.",
        "modality": "Pictures, videos and recordings by themselves; undefined where one class only is there.",
    }
    charts = []
    for column, caption in explained.items():
        parts = {
            name.partition("=")[2]: figures for name, figures in results.slices.items() if name.startswith(f"{column}=")
        }
        if not parts or (len(parts) == 1 and column != "manipulation"):
            continue
        auc = {name: figures["roc_auc"] for name, figures in parts.items()}
        charts.append(drawings.estimates(f"ROC AUC by {column}", caption, auc, share_axis("ROC AUC"), reference=0.5))
        found = {name: figures["tpr"] for name, figures in parts.items() if figures["tpr"].n}
        axis = Axis("fakes found at the threshold in use", 0, 1, (0, 0.25, 0.5, 0.75, 1), percent=True)
        if found:
            text = "Share of fakes that are called fake, with exact intervals; n counts fakes."
            charts.append(drawings.estimates(f"Fakes found by {column}", text, found, axis, style=1))
    return charts


def _parts_table(results: Results) -> Table | None:
    """Put the ROC AUC of all systems on each part of test side by side."""
    names = [system.name for system in results.systems]
    rows = tuple(
        (part, *(full(results.parts[name][part]["roc_auc"]) if part in results.parts[name] else "–" for name in names))
        for part in results.slices
    )
    return Table("ROC AUC of every system on every part of test", ("part", *names), rows) if rows else None


def left_of_ensemble(results: Results) -> Table | None:
    """List what each damage and attack leaves of the ensemble where it is strongest, at the threshold in use.

    Args:
        results: The findings.

    Returns:
        The table; None when nothing was damaged.
    """
    damaged, attacked = results.robustness.table, results.attacks.table
    conditions = [
        (f"{PERTURBATIONS[str(name)].title}, severity {rows['severity'].max()} of 5", rows, "severity")
        for name, rows in damaged.loc[damaged["severity"] > 0].groupby("perturbation", sort=False)
    ] + [
        (f"{ATTACKS[str(name)].title} on {on}, {rows['epsilon'].max():g} of 255 levels", rows, "epsilon")
        for (name, on), rows in attacked.loc[attacked["epsilon"] > 0].groupby(
            ["perturbation", "crafted_on"], sort=False
        )
    ]
    if not conditions:
        return None
    clean = damaged.loc[damaged["severity"] == 0]
    cells = []
    for title, rows, condition in [("undamaged", clean, "severity"), *conditions]:
        own = rows.loc[(rows["system"] == "ensemble") & (rows[condition] == rows[condition].max())]
        for row in drawings.beside_auc(own, condition).to_dict("records"):
            others = (str(row[name]) for name in drawings.BESIDE_AUC.values())
            cells.append((title, full(drawings.estimate_of(row)), *others))
    headers = ("condition", "ROC AUC", *drawings.BESIDE_AUC.values())
    return Table("The ensemble under the strongest of each, at the threshold in use", headers, tuple(cells))


def _importance(results: Results) -> Chart | None:
    fusion, analysis = results.inputs.fusion, results.inputs.analysis
    if analysis is not None:
        weights = analysis.weights
    elif fusion.used and fusion.importance:
        weights = _written_weights(fusion)
    else:
        return None
    titles = {weight.input: input_title(weight.input, code=False) for weight in weights}
    return drawings.importance(weights, titles, fusion)


def _written_weights(fusion: FusionInfo) -> list[InputWeight]:
    """Give the coefficients of a fusion without an analysis the form of one, without intervals."""
    weights = [
        InputWeight(
            input=name,
            coefficient=Estimate(value=coefficient, n=0),
            share=Estimate(value=fusion.importance.get(name, 0.0), n=0),
            clear=True,
        )
        for name, coefficient in zip(fusion.inputs, fusion.coefficients, strict=True)
    ]
    return sorted(weights, key=lambda weight: -abs(weight.coefficient.value or 0.0))


def input_title(name: str, *, code: bool = True) -> str:
    """Name an input of fusion for a reader.

    Args:
        name: ``ensemble``, a feature, or ``missing:<feature>``.
        code: Whether its name in tables stands behind.

    Returns:
        For example ``Sharpness (quality.blur)``.
    """
    if name == "ensemble":
        return "The networks together"
    if name.startswith("missing:"):
        inner = name.partition(":")[2]
        title = CATALOGUE[inner].title if inner in CATALOGUE else inner
        return f"{title}: not measurable"
    if name not in CATALOGUE:
        return name
    return f"{CATALOGUE[name].title} ({name})" if code else CATALOGUE[name].title


def _data_tables(results: Results) -> list[Table]:
    dataset, samples = results.inputs.dataset, results.inputs.samples
    splits = [split for split in SPLITS if split in dataset.counts]
    kinds = [kind for kind in ("real", "fake", "unknown") if any(dataset.counts[split].get(kind) for split in splits)]
    counts = tuple(
        (split, *(str(dataset.counts[split].get(kind, 0)) for kind in kinds), str(dataset.groups.get(split, 0)))
        for split in splits
    )
    usable = samples.dropna(subset=["split"])
    kind = usable["label"].map({0: "real", 1: "fake"}).fillna("unknown")
    by_manipulation = pd.crosstab(usable["manipulation"].fillna(kind), usable["split"])
    by_source = pd.crosstab(usable["source"], kind)
    by_compression = pd.crosstab(usable["compression"].fillna("unknown"), kind)
    by_modality = pd.crosstab(usable["modality"].fillna("unknown"), kind)
    return [
        Table("Samples and independent groups in each split", ("split", *kinds, "groups"), counts),
        _cross("By manipulation and split", "manipulation", by_manipulation, SPLITS),
        _cross("By source", "source", by_source, kinds),
        _cross("By compression", "compression", by_compression, kinds),
        _cross("By kind of media", "media", by_modality, kinds),
    ]


def _cross(caption: str, first: str, table: pd.DataFrame, columns: tuple[str, ...] | list[str]) -> Table:
    shown = [name for name in columns if name in table.columns]
    rows = tuple((str(name), *(str(int(row[column])) for column in shown)) for name, row in table.iterrows())
    return Table(caption, (first, *shown), rows)


def _failures(results: Results) -> tuple[Table, int]:
    """List what could not be used, from ingest and from extraction, and count what the list leaves out."""
    records = results.inputs.failed().to_dict("records")
    rows = [(row["stage"], place_of(results.inputs, row), *_reason(row["reason"])) for row in records]
    rows.sort()
    shown = tuple(rows[:MAX_FAILURES])
    return Table("Files that could not be used", ("stage", "file", "reason", "what was seen"), shown), len(rows)


def _reason(reason: object) -> tuple[str, str]:
    code, _, sentence = (reason if isinstance(reason, str) else "unknown").partition(":")
    return readable(code.strip()), sentence.strip()


def _configuration(results: Results, config: EvaluateConfig, seed: int) -> list[tuple[str, Mapping[str, Any]]]:
    inputs = results.inputs
    general = {
        "data set": inputs.dataset.name,
        "data set version": inputs.dataset.version,
        "extractor version": inputs.extraction.extractor_version,
        "seed": seed,
    }
    ensemble = {
        "method": inputs.ensemble.method,
        "weights": _pairs(inputs.ensemble.detectors, inputs.ensemble.weights),
        "temperatures of the networks": _pairs(inputs.ensemble.detectors, inputs.ensemble.temperatures),
        "temperature of the combination": f"{inputs.ensemble.temperature:.4g}",
        "agreement threshold": inputs.ensemble.agreement_threshold,
    }
    return [
        ("Run", general),
        ("Evaluation", {name: _plain(value) for name, value in config.model_dump(mode="json").items()}),
        ("Ensemble", ensemble),
        ("Fusion", _fusion_facts(inputs.fusion)),
    ]


def _fusion_facts(fusion: FusionInfo) -> dict[str, str]:
    rules = fusion.rules
    named = {
        "real_evidence": rules.real_evidence is not None,
        "artefact_scale": rules.artefact_scale is not None,
        "feedback": bool(rules.feedback),
    }
    return {
        "way to the probability": METHOD_TEXTS[fusion.method],
        "inputs": str(len(fusion.inputs)),
        "operating point": f"{fusion.default_operating_point}, of {', '.join(fusion.operating_points)}",
        "rules": ", ".join(name for name, there in named.items() if there) or "–",
    }


def _training_table(results: Results) -> Table:
    """Put the settings of all networks beside each other."""
    infos = [one.info for one in results.inputs.detectors]
    facts = [_training_facts(info) for info in infos]
    names = list(dict.fromkeys(name for one in facts for name in one))
    rows = tuple((readable(name), *(_plain(one.get(name)) for one in facts)) for name in names)
    return Table("Training of the networks", ("setting", *(info.name for info in infos)), rows)


def _training_facts(info: DetectorInfo) -> dict[str, Any]:
    settings = {name: value for name, value in info.config.items() if name != "models"}
    return {
        "architecture": info.architecture,
        "parameters": f"{info.n_parameters:,}".replace(",", " "),
        "input": str(info.preprocessing),
        "trained on": info.device,
        "training time": f"{info.train_seconds:.0f} s",
        "weights SHA-256": f"{info.weights_sha256[:16]}…",
        **settings,
        **{f"version of {name}": version for name, version in sorted(info.versions.items())},
    }


def _plain(value: object) -> str:
    """Write a setting as a person would."""
    if value is None or value in ({}, [], ""):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(readable(str(item)) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{readable(str(key))} {_plain(each)}" for key, each in value.items() if each) or "–"
    return str(value)


def _pairs(names: list[str], values: list[float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in zip(names, values, strict=True))


def _versions() -> dict[str, str]:
    found = {"unmask": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
