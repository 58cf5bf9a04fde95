// The report: the same answer, everything open, with heat maps, ready to print.

import { banner, el, evidence, faces, facts, reliability, timeline, unmeasured, warnings } from "./draw.js";
import { picture, read } from "./server.js";

const $ = (id) => document.getElementById(id);

async function main() {
  $("print").addEventListener("click", () => window.print());
  const id = decodeURIComponent(location.hash.slice(1));
  try {
    const [analysis, models] = await Promise.all([read(`/v1/analyses/${encodeURIComponent(id)}`), read("/v1/model")]);
    $("title").textContent = `Report on ${analysis.file}`;
    document.title = `unmask – report on ${analysis.file}`;
    $("facts").replaceChildren(...facts(analysis), el("dt", {}, "Made at"), el("dd", {}, new Date().toLocaleString()),
      el("dt", {}, "Number"), el("dd", {}, analysis.id));
    const plain = faces(analysis, picture);
    const maps = faces(analysis, picture, { maps: true });
    if (plain) plain.card.querySelectorAll("button").forEach((button) => button.remove());
    if (maps) maps.card.querySelector("h2").textContent = "The same faces with heat maps";
    const parts = [banner(analysis), warnings(analysis), timeline(analysis), plain?.card, maps?.card,
      evidence(analysis), unmeasured(analysis), reliability(analysis, models)];
    $("result").replaceChildren(...parts.filter(Boolean));
    for (const part of document.querySelectorAll("details")) part.open = true;  // paper cannot be opened
    $("result").hidden = false;
    await Promise.all([plain?.ready, maps?.ready]);
    document.body.dataset.ready = "yes";
  } catch (error) {
    $("problem").replaceChildren(el("h2", {}, "There is no such report"), el("p", {}, error.message), el("p", {}, error.fix || ""));
    $("problem").hidden = false;
  }
}

main();
