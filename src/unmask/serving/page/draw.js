// From an answer to the page. Everything is built as elements and text: nothing of a file's name becomes markup.

export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  add(element, ...children);
  return element;
}

// `append` would write "null" where there is nothing to add.
function add(element, ...children) {
  element.append(...children.filter((child) => child !== null && child !== undefined));
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const FAMILIES = {
  art: "Traces in single pictures",
  temp: "Consistency over time",
  face: "Movement of the face",
  forensics: "Camera and coding",
  wm: "Marks of generators",
  quality: "Quality of the file",
};

const VERDICTS = {
  fake: ["Probably a fake", "!"],
  real: ["No clear sign of a fake", "✓"],
  uncertain: ["No verdict: the detectors disagree", "?"],
  "not scored": ["This file could not be judged", "–"],
};

export const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)} %`;
export const number = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString());

export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

export const files = (count) => `${count} ${count === 1 ? "file" : "files"}`;

export function range(estimate) {
  if (estimate.value === null) return `unknown (${files(estimate.n)})`;
  const interval = estimate.low === null ? "" : ` [${percent(estimate.low)} to ${percent(estimate.high)}]`;
  return `${percent(estimate.value)}${interval}, of ${files(estimate.n)}`;
}

function sentence(reason) {
  const at = reason.indexOf(": ");
  const text = at > 0 && !reason.slice(0, at).includes(" ") ? reason.slice(at + 2) : reason;
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function banner(analysis) {
  const [title, sign] = VERDICTS[analysis.verdict];
  const kind = analysis.verdict === "not scored" ? "none" : analysis.verdict;
  const card = el("div", { class: `card verdict ${kind}` },
    el("h2", { id: "verdict" }, el("span", { class: "sign", "aria-hidden": "true" }, sign), title),
    el("p", {}, analysis.summary));
  if (analysis.probability !== null) add(card, scale(analysis), spread(analysis));
  return card;
}

function scale(analysis) {
  const shown = percent(analysis.probability, analysis.probability > 0.995 || analysis.probability < 0.005 ? 1 : 0);
  const side = analysis.probability < 0.1 ? " left" : analysis.probability > 0.9 ? " right" : "";
  const needle = el("div", { class: `needle${side}` }, el("span", {}, shown));
  needle.style.left = `${100 * analysis.probability}%`;
  const limit = el("div", { class: "limit" });
  limit.style.left = `${100 * analysis.threshold}%`;
  return el("div", { class: "scale", role: "img",
    "aria-label": `Probability of a fake: ${shown}; the threshold is ${percent(analysis.threshold)}.` },
  el("div", { class: "track" }, limit, needle),
  el("div", { class: "ends" }, el("span", {}, "genuine"), el("span", {}, `dashed: threshold, ${percent(analysis.threshold)}`),
    el("span", {}, "fake")));
}

function spread(analysis) {
  const known = analysis.detectors.filter((detector) => detector.probability !== null);
  if (known.length < 2) return null;
  const values = known.map((detector) => detector.probability);
  const [low, high] = [percent(Math.min(...values)), percent(Math.max(...values))];
  const said = low === high ? `Each of the ${known.length} detectors alone says ${low}.`
    : `The ${known.length} detectors alone say between ${low} and ${high}.`;
  const learned = analysis.method === "fallback" ? ""
    : " The estimate above is what such answers together meant on files whose truth is known.";
  return el("p", { class: "hint" }, said + learned);
}

export function warnings(analysis) {
  if (!analysis.warnings.length) return null;
  return el("div", { class: "card" }, el("h2", {}, "Please note"),
    el("ul", {}, ...analysis.warnings.map((text) => el("li", {}, text))));
}

// `seek`, where there is a film to look at, shows it from a second on.
export function timeline(analysis, seek = null) {
  const points = analysis.timeline;
  const sound = analysis.modality === "audio";
  if (!points.length) return null;
  const total = Math.max(Math.ceil(analysis.media?.duration_s || 0), points[points.length - 1].second + 1);
  const width = 600, height = 100, base = 100, tall = 95;
  const chart = svg("svg", { class: "timeline", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const point of points) {
    const x = (point.second / total) * width;
    const bar = Math.max(2, point.probability * tall);
    chart.append(svg("rect", { x: x + 0.5, y: base - bar, width: Math.max(width / total - 1, 0.8), height: bar,
      class: point.probability >= 0.5 ? "fakebar" : "realbar" }));
  }
  chart.append(svg("line", { x1: 0, x2: width, y1: base - tall / 2, y2: base - tall / 2 }));
  const ends = el("p", { class: "hint" }, `From 0:00 to ${clock(total)}. The higher and the more orange a second, the more `
    + `the detectors ${sound ? "hear" : "see"} a fake in it; the dashed line is one half. Gaps: ${sound ? "not listened to" : "no face"}.`);
  const stretches = analysis.stretches.length
    ? el("ul", { class: seek ? "stretches" : null }, ...analysis.stretches.map((part) => {
      const text = `${clock(part.start_s)} to ${clock(part.end_s)}: up to ${percent(part.probability)}`;
      return el("li", {}, seek ? el("button", { type: "button", class: "button", "aria-label": `Play from ${text}`,
        onclick: () => seek(part.start_s) }, `▶ ${text}`) : text);
    }))
    : el("p", {}, "No stretch stands out.");
  const table = el("table", { class: "visually-hidden" }, el("caption", {}, "Probability of a fake, second by second"),
    el("tbody", {}, ...points.map((point) => el("tr", {}, el("th", { scope: "row" }, clock(point.second)),
      el("td", {}, percent(point.probability))))));
  return el("div", { class: "card" }, el("h2", {}, sound ? "Over the recording" : "Over the video"), chart, ends,
    el("h3", {}, "Suspicious stretches"), stretches, el("div", { class: "visually-hidden" }, table));
}

// `load` makes an address of a picture; the heat map is asked for only when somebody wants it.
export function faces(analysis, load, { maps = false } = {}) {
  if (!analysis.faces.length) return null;
  const list = el("ul", { class: "faces" });
  const shown = [];
  for (const face of analysis.faces) {
    const when = analysis.modality === "video" ? ` at ${clock(face.time_s)}` : "";
    const text = `${percent(face.probability)} fake${when}`;
    const image = el("img", { alt: `Face${when}: ${text}` });
    const base = `/v1/analyses/${encodeURIComponent(analysis.id)}/faces/${face.index}`;
    shown.push({ image, base });
    list.append(el("li", {}, image, el("p", {}, text)));
  }
  const show = async (map) => {
    for (const { image, base } of shown) {
      try { image.src = await load(map ? `${base}/heatmap` : base); } catch { image.alt += " (no longer kept)"; }
    }
  };
  const state = el("span", { role: "status", class: "hint" });
  const button = el("button", { type: "button", class: "button no-print", "aria-pressed": "false", onclick: async () => {
    const map = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(map));
    state.textContent = map ? " Computing the heat maps …" : "";
    await show(map);
    state.textContent = map ? " Orange speaks for a fake, blue for a genuine face." : "";
  } }, "Show what spoke for a fake");
  const ready = show(maps);
  const card = el("div", { class: "card" }, el("h2", {}, "Faces that the answer rests on"),
    el("p", { class: "hint" }, "The first ones speak most for a fake, the last ones least. For the heat map each part of a "
      + "face is hidden in turn and the detectors are asked again: orange parts spoke for a fake, blue ones for a genuine face."),
    list, el("p", {}, maps ? null : button, state));
  return { card, ready };
}

function push(contribution) {
  if (contribution === null || contribution === undefined || Math.abs(contribution) < 0.02) return null;
  const fake = contribution > 0;
  const strength = Math.abs(contribution) > 0.5 ? "clearly" : "slightly";
  return el("span", { class: `push ${fake ? "fake" : "real"}` }, `${strength} towards ${fake ? "fake" : "genuine"}`);
}

function measured(feature) {
  const usual = feature.usual_low === null || feature.usual_high === null ? ""
    : `; genuine files usually ${number(feature.usual_low)} to ${number(feature.usual_high)}`;
  return el("li", {},
    el("div", { class: "top" }, el("span", {}, feature.title), push(feature.contribution)),
    el("p", {}, feature.meaning),
    el("p", { class: "hint" }, `Measured: ${number(feature.value)} (${feature.unit})${usual}.`,
      feature.bias ? ` Mind: ${feature.bias}` : ""));
}

export function evidence(analysis) {
  const card = el("div", { class: "card" }, el("h2", {}, "The evidence"));
  const known = analysis.detectors.filter((detector) => detector.probability !== null);
  if (known.length) {
    add(card, el("details", { open: true }, el("summary", {}, "Trained detectors ", el("span", { class: "hint" }, `(${known.length})`)),
      el("div", { class: "table" }, el("table", {},
        el("thead", {}, el("tr", {}, ...["Detector", "Says fake", "Counts", "Pictures or sounds"].map((text) => el("th", { scope: "col" }, text)))),
        el("tbody", {}, ...known.map((detector) => el("tr", {}, el("th", { scope: "row" }, detector.name),
          el("td", { class: "number" }, percent(detector.probability)), el("td", { class: "number" }, percent(detector.weight)),
          el("td", { class: "number" }, String(detector.frames)))))))));
  }
  for (const rule of analysis.rules || []) add(card, el("p", {}, rule.sentence));
  let any = false;
  for (const [family, title] of Object.entries(FAMILIES)) {
    const there = analysis.features.filter((feature) => feature.name.startsWith(`${family}.`) && feature.value !== null);
    if (!there.length) continue;
    any = true;
    there.sort((a, b) => Math.abs(b.contribution || 0) - Math.abs(a.contribution || 0));
    const moving = there.filter((feature) => Math.abs(feature.contribution || 0) >= 0.02).length;
    const note = moving ? `(${there.length} measured, ${moving} moved the estimate)` : `(${there.length} measured, for information)`;
    add(card, el("details", {}, el("summary", {}, `${title} `, el("span", { class: "hint" }, note)),
      el("ul", { class: "evidence" }, ...there.map(measured))));
  }
  return known.length || any ? card : null;
}

export function unmeasured(analysis) {
  const byReason = new Map();
  for (const feature of analysis.features.filter((each) => each.value === null)) {
    const reason = feature.reason || "No reason was given.";
    byReason.set(reason, [...(byReason.get(reason) || []), feature.title]);
  }
  if (!byReason.size) return null;
  return el("div", { class: "card" }, el("h2", {}, "What could not be measured"),
    el("ul", {}, ...[...byReason].map(([reason, titles]) => el("li", {}, `${titles.join(", ")}: ${sentence(reason)}`))));
}

export function reliability(analysis, models) {
  const model = models?.models.find((each) => each.version === analysis.model_version);
  const card = el("div", { class: "card" }, el("h2", {}, "How far to trust it"));
  if (!model) {
    add(card, el("p", {}, "How reliable this version is, is unknown here."));
    return card;
  }
  add(card, el("p", { class: "hint" }, "Ranges in brackets hold the true value in 95 of 100 cases. Wide ones come from few "
    + "files and say little."));
  if (model.test) add(card, ...onTest(model.test));
  const point = model.operating_point;
  add(card, 
    el("p", {}, "On the material that this version was calibrated with, at the threshold used here:"),
    el("ul", {},
      el("li", {}, `genuine files wrongly called fake: ${range(point.false_positive_rate)}`),
      el("li", {}, `fakes found: ${range(point.true_positive_rate)}`)),
    point.note ? el("p", { class: "hint" }, point.note) : null,
    el("p", { class: "hint" }, "The estimate takes fakes to be as common as in that material "
      + `(${files(point.true_positive_rate.n)} of ${files(point.true_positive_rate.n + point.false_positive_rate.n)}). `
      + "Where fakes are rarer, fewer of such files are fakes than it says."),
    el("p", { class: "hint" }, "How it does on other material, for example other kinds of forgery, cameras or compression, "
      + "is not known from these figures."));
  return card;
}

function onTest(test) {
  const slices = Object.entries(test.slices).filter(([, estimate]) => estimate.value !== null);
  const figure = (value) => value.toFixed(2);
  const interval = (estimate) => (estimate.low === null ? "" : ` [${figure(estimate.low)} to ${figure(estimate.high)}]`);
  const ranking = (estimate) => `${figure(estimate.value)}${interval(estimate)}, ${files(estimate.n)}`;
  return [
    el("p", {}, `On ${files(test.n)} that were kept apart for testing:`),
    el("ul", {},
      el("li", {}, `genuine files wrongly called fake: ${range(test.false_positive_rate)}`),
      el("li", {}, `fakes found: ${range(test.true_positive_rate)}`),
      test.roc_auc.value === null ? null : el("li", {}, `ranking (0.5 is guessing, 1 is perfect): ${ranking(test.roc_auc)}`)),
    slices.length ? el("details", {}, el("summary", {}, "By kind of material"), el("div", { class: "table" }, el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Material"), el("th", { scope: "col" }, "Ranking"))),
      el("tbody", {}, ...slices.map(([name, estimate]) => el("tr", {}, el("th", { scope: "row" }, name.replace("=", ": ")),
        el("td", {}, ranking(estimate)))))))) : null,
    test.warnings.length ? el("details", {}, el("summary", {}, `What limits these figures (${test.warnings.length})`),
      el("ul", {}, ...test.warnings.map((text) => el("li", {}, text)))) : null,
  ];
}

export function facts(analysis) {
  const media = analysis.media;
  const rows = [["File", analysis.file], ["Version", analysis.model_version], ["Answered in", `${analysis.timing.total.toFixed(1)} s`]];
  if (media) {
    const size = media.width_px ? `${media.width_px} × ${media.height_px} pixels, ` : "";
    const length = media.duration_s ? `, ${media.duration_s.toFixed(1)} s` : "";
    rows.splice(1, 0, ["Content", `${analysis.modality}: ${size}${media.codec}${length}`]);
  }
  return rows.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
}
