// How the versions are doing: tables, because the figures matter more than their shape.

import { el, files, number, range } from "./draw.js";
import { read, useKey } from "./server.js";

const $ = (id) => document.getElementById(id);

function table(caption, head, rows) {
  return el("div", { class: "table" }, el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, ...rows.map(([first, ...rest]) => el("tr", {}, el("th", { scope: "row" }, first),
      ...rest.map((text) => el("td", { class: "number" }, text)))))));
}

function plain(estimate) {
  if (estimate.value === null) return `no such rule, or no file`;
  return `${number(estimate.value)}${estimate.low === null ? "" : ` [${number(estimate.low)} to ${number(estimate.high)}]`}, of ${files(estimate.n)}`;
}

function version(report, days) {
  const verdicts = Object.entries(report.verdicts).map(([name, count]) => `${count} ${name}`).join(", ");
  const shifted = report.drift.filter((each) => each.state === "shifted").map((each) => each.name);
  const few = report.drift.every((each) => each.state === "too few");
  const parts = [
    el("h2", {}, report.version),
    el("p", { class: "hint" }, `As ${report.arms.join(" and ")}: ${report.n} judged, ${report.n_answered} of them as the answer. ${verdicts}.`),
    table("What people told and checked", ["", "Figure with its range"], [
      ["Genuine files called fake", range(report.false_positive_rate)],
      ["Fakes called fake", range(report.true_positive_rate)],
      ["Verdict agreed with what was said, checked or not", range(report.right)],
      ["Capped by camera evidence", report.override_rate.n ? range(report.override_rate) : "this version has no such rule"],
      ["How much traces in single pictures counted", report.artefact_factor.n ? plain(report.artefact_factor) : "this version has no such rule"],
    ]),
  ];
  const weights = Object.entries(report.feedback_weights);
  if (weights.length) parts.push(table("Weights of the inputs by what people said (1 is as trained)", ["Input", "Weight"], weights.map(([name, value]) => [name, number(value)])));
  parts.push(el("h3", {}, `Drift: the last ${days} days against the time before`),
    el("p", {}, few ? "Too few files on one of the two sides to say anything."
      : shifted.length ? `Shifted: ${shifted.join(", ")}.` : "Nothing has shifted beyond chance."));
  if (!few) {
    parts.push(el("details", {}, el("summary", {}, "All quantities"), table("Population stability index and Kolmogorov-Smirnov test, corrected for their number",
      ["Quantity", "Before", "Recent", "PSI", "by chance below", "KS", "p", "State"],
      report.drift.map((each) => [each.name, String(each.n_before), String(each.n_recent), number(each.psi), number(each.psi_by_chance), number(each.ks), number(each.p), each.state]))));
  }
  return el("section", { class: "card" }, ...parts);
}

async function main() {
  try {
    const monitoring = await read("/v1/monitoring");
    $("problem").hidden = true;
    $("versions").replaceChildren(...(monitoring.versions.length
      ? monitoring.versions.map((each) => version(each, monitoring.window_days))
      : [el("p", { class: "card" }, "Nothing has been judged yet.")]));
  } catch (error) {
    if (error.code === "no_key") { $("key-form").hidden = false; $("key").focus(); return; }
    $("problem").replaceChildren(el("h2", {}, "That did not work"), el("p", {}, error.message), el("p", {}, error.fix || ""));
    $("problem").hidden = false;
  }
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  $("key-form").hidden = true;
  main();
});
main();
