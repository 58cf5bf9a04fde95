"""By reading the source: whatever fits parameters is reached only through functions that refuse test rows."""

from __future__ import annotations

import ast
from pathlib import Path

import unmask

SOURCE = Path(unmask.__file__).parent
GUARD = "rows_for_choice"
# What solves for parameters, in the libraries that are used.
SOLVERS = {
    "minimize",
    "isotonic_regression",
    "cross_val_predict",
    "LogisticRegression",
    "CalibratedClassifierCV",
    "create_study",
    "make_optimizer",
}
# What solves and needs no guard of its own, with the reason.
FREE = {
    ("unmask.data.audit", "_cross_validated"): "measures whether metadata tell the classes apart; nothing uses the fit",
    ("unmask.training.tuning", "_study"): "its trials are trainings, and Trainer is guarded",
    ("unmask.training.step", "Stepper"): "gets batches; they come from Trainer, which is guarded",
}
Function = tuple[str, str]


def used_by_function() -> dict[Function, set[Function]]:
    """Each function or class of the source to what it uses: ours as (module, name), solvers as ("", name)."""
    uses: dict[Function, set[Function]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        module = ".".join(("unmask", *path.relative_to(SOURCE).with_suffix("").parts))
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tops = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        known = {
            name.asname or name.name: (node.module, name.name)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module
            for name in node.names
        } | {top.name: (module, top.name) for top in tops}
        for top in tops:
            inside = list(ast.walk(top))
            named = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
            attributes = {node.attr for node in inside if isinstance(node, ast.Attribute)}
            uses[module, top.name] = {known[name] for name in named if name in known} | {
                ("", name) for name in (named | attributes) & SOLVERS
            }
    return uses


def unguarded_ways(uses: dict[Function, set[Function]]) -> set[Function]:
    """Follow what solves up to its callers, and stop at guards; returns where nobody calls any more."""
    guarded = {function for function, used in uses.items() if any(name == GUARD for _, name in used)}
    waiting = {function for function, used in uses.items() if any(not module for module, _ in used)}
    assert set(FREE) <= waiting, "a reason is given for what does not solve anything"
    ends, seen = set(), {*FREE, *guarded}
    while waiting:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        callers = {caller for caller, used in uses.items() if function in used and caller != function}
        waiting |= callers
        if not callers:
            ends.add(function)
    return ends


def test_no_fit_is_reached_without_a_guard() -> None:
    assert unguarded_ways(used_by_function()) == set()


def test_a_missing_guard_is_seen() -> None:
    """The walk itself: without the guards of fusion, its fits are reached from the command."""
    uses = used_by_function()
    for function, used in uses.items():
        if function[0].startswith("unmask.fusion"):
            uses[function] = {one for one in used if one[1] != GUARD}
    assert ("unmask.cli.stages", "fuse") in unguarded_ways(uses)
