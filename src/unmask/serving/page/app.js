// The page: choose, send, watch, show.

import { banner, el, evidence, faces, facts, reliability, timeline, unmeasured, warnings } from "./draw.js";
import { ask, picture, Problem, read, send, upload, useKey } from "./server.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 400;
let limits = null;
let models = null;
let running = null;
let pictures = [];

async function load(path) {
  const address = await picture(path);
  pictures.push(address);
  return address;
}

function show(id, visible) {
  $(id).hidden = !visible;
}

async function prepare() {
  try {
    [limits, models] = await Promise.all([read("/v1/limits"), read("/v1/model")]);
  } catch (error) {
    complain(error);
    return;
  }
  const megabytes = Math.floor(limits.max_upload_bytes / (1024 * 1024));
  const minutes = Math.round(limits.max_job_duration_s / 60);
  const hears = models.models[0].modalities.includes("audio");
  $("limits").textContent = `Pictures, and videos${hears ? " and recordings" : ""} up to ${minutes} minutes; at most ${megabytes} MB.`;
  show("consent", limits.keep_uploads);
  $("model").textContent = `Detector: ${models.models.map((model) => model.version).join(", ")}`;
}

function complain(error) {
  if (error.name === "AbortError") return;
  if (error.code === "no_key") {
    show("key-form", true);
    $("key").focus();
    return;
  }
  const titles = { too_large: "The file is too large", too_long: "The video is too long", busy: "The server is busy",
    not_measurable: "This file cannot be judged by this detector", unsupported: "This kind of file is not read here", truncated: "The file is incomplete", corrupt: "The file is damaged",
    unreadable: "The file is damaged", crashed: "The file is damaged", empty_file: "The file is empty",
    timeout: "The file takes too long here", unreachable: "There is no connection" };
  $("problem").replaceChildren(el("h2", {}, titles[error.code] || "That did not work"), el("p", {}, error.message),
    error.fix ? el("p", {}, error.fix) : null, error.requestId ? el("p", { class: "hint" }, `Request ${error.requestId}`) : null);
  show("problem", true);
}

function progress(text, share) {
  if ($("work-text").textContent !== text) $("work-text").textContent = text;
  if (share === null) $("bar").removeAttribute("value"); else $("bar").value = Math.round(100 * share);
}

async function check(file) {
  running?.abort();
  running = new AbortController();
  const { signal } = running;
  for (const address of pictures.splice(0)) URL.revokeObjectURL(address);
  show("problem", false);
  show("result", false);
  if (limits && file.size > limits.max_upload_bytes) {
    const most = Math.floor(limits.max_upload_bytes / (1024 * 1024));
    complain(new Problem({ code: "too_large", detail: `It has ${Math.ceil(file.size / (1024 * 1024))} MB; at most ${most} MB are taken.`,
      fix: "Choose a shorter clip or a smaller picture." }));
    return;
  }
  show("work", true);
  $("work").scrollIntoView({ block: "nearest" });
  try {
    const form = new FormData();
    form.append("client", person());
    form.append("keep", String(Boolean($("keep").checked && limits?.keep_uploads)));
    form.append("file", file, file.name);
    progress("Sending the file …", 0);
    const sent = (share) => progress(share < 1 ? "Sending the file …" : "Looking at the file …", share < 1 ? share : null);
    // A picture takes a moment: it does not wait behind other people's films.
    if (file.type.startsWith("image/")) {
      present(await upload("/v1/analyze", form, sent, signal), file);
      return;
    }
    let job = await upload("/v1/jobs", form, sent, signal);
    try {
      job = await finished(job, signal);
    } catch (error) {
      if (error.name === "AbortError") ask(`/v1/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
      throw error;
    }
    if (job.problem) throw new Problem(job.problem);
    present(job.result, file);
  } catch (error) {
    complain(error);
  } finally {
    if (running?.signal === signal) show("work", false);
  }
}

async function finished(job, signal) {
  const texts = { waiting: "Waiting for a free place …", running: "Looking at the file, picture by picture …" };
  while (job.status in texts) {
    progress(texts[job.status], job.status === "running" && job.progress > 0 ? job.progress : null);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    signal.throwIfAborted();
    job = await read(`/v1/jobs/${job.id}`, { signal });
  }
  return job;
}

// Stays the same for a browser, so that one person gets one version of the detector.
function person() {
  let name = localStorage.getItem("unmask-client");
  if (!name) {
    name = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    localStorage.setItem("unmask-client", name);
  }
  return name;
}

function present(analysis, file) {
  const shown = faces(analysis, load);
  const view = preview(file, analysis);
  const film = view.querySelector("video");
  const seek = film && ((second) => {
    film.currentTime = second;
    film.scrollIntoView({ block: "center" });
    film.play().catch(() => film.focus());
  });
  const parts = [
    banner(analysis), warnings(analysis),
    el("div", { class: "two" }, view, opinion(analysis)),
    timeline(analysis, seek), shown?.card, evidence(analysis), unmeasured(analysis), reliability(analysis, models),
  ];
  $("result").replaceChildren(...parts.filter(Boolean));
  show("work", false);
  show("result", true);
  $("result").focus();
  $("result").scrollIntoView({ block: "start" });
}

function preview(file, analysis) {
  const address = URL.createObjectURL(file);
  pictures.push(address);
  const kind = analysis.modality;
  const view = kind === "image" ? el("img", { class: "preview", src: address, alt: "The file that was checked" })
    : kind === "audio" ? el("audio", { class: "preview", src: address, controls: true, "aria-label": "The file that was checked" })
    : el("video", { class: "preview", src: address, controls: true, playsinline: true, "aria-label": "The file that was checked" });
  return el("div", { class: "card" }, view, el("dl", { class: "facts" }, ...facts(analysis)));
}

function opinion(analysis) {
  const state = el("p", { role: "status" });
  const verified = el("input", { type: "checkbox" });
  const say = (said) => async () => {
    try {
      const answer = await send("/v1/feedback", { analysis_id: analysis.id, verified: verified.checked, ...said });
      state.className = "said";
      state.textContent = `Thank you. Noted: the file is ${answer.label === "fake" ? "a fake" : "genuine"}.`;
    } catch (error) {
      state.className = "";
      state.textContent = error.message;
    }
  };
  const decided = analysis.verdict === "real" || analysis.verdict === "fake";
  const buttons = decided
    ? [el("button", { type: "button", class: "button", onclick: say({ right: true }) }, "This was right"),
      el("button", { type: "button", class: "button", onclick: say({ right: false }) }, "This was wrong")]
    : [el("button", { type: "button", class: "button", onclick: say({ label: "real" }) }, "It is genuine"),
      el("button", { type: "button", class: "button", onclick: say({ label: "fake" }) }, "It is a fake")];
  return el("div", { class: "card" }, el("h2", {}, "Do you know the truth?"),
    el("p", { class: "hint" }, "What you say is recorded, without the file, and shows how well the detector does."),
    el("p", {}, el("label", {}, verified, " I have checked it, it is not only a feeling.")),
    el("p", { class: "buttons" }, ...buttons), state,
    el("p", {}, el("a", { href: `/report#${encodeURIComponent(analysis.id)}`, target: "_blank", rel: "opener" }, "Report to print")));
}

// --- choosing -----------------------------------------------------------------------------------------------------

$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file) check(file);
});
$("cancel").addEventListener("click", () => { running?.abort(); show("work", false); $("file").focus(); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  show("key-form", false);
  show("problem", false);
  prepare();
});
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
}
document.addEventListener("drop", (event) => { const [file] = event.dataTransfer.files; if (file) check(file); });
document.addEventListener("paste", (event) => { const [file] = event.clipboardData.files; if (file) check(file); });

// --- camera -------------------------------------------------------------------------------------------------------

let stream = null;

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  show("camera", false);
}

$("camera-open").addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user" } });
  } catch {
    complain(new Problem({ detail: "The camera cannot be used.", fix: "Allow it in the browser, or choose a file." }));
    return;
  }
  const view = $("camera-view");
  // Until the first picture is there, there is nothing to take.
  const buttons = [$("camera-photo"), $("camera-record")];
  for (const button of buttons) button.disabled = true;
  view.srcObject = stream;
  show("camera", true);
  $("camera-close").focus();
  await Promise.all([new Promise((resolve) => view.requestVideoFrameCallback(resolve)), view.play()]).catch(() => {});
  if (!stream) return;  // closed meanwhile
  for (const button of buttons) button.disabled = false;
  $("camera-photo").focus();
});
$("camera-close").addEventListener("click", () => { closeCamera(); $("camera-open").focus(); });
$("camera-photo").addEventListener("click", () => {
  const view = $("camera-view");
  const canvas = el("canvas", { width: view.videoWidth, height: view.videoHeight });
  canvas.getContext("2d").drawImage(view, 0, 0);
  canvas.toBlob((blob) => { closeCamera(); check(new File([blob], "camera.jpg", { type: "image/jpeg" })); }, "image/jpeg", 0.95);
});
$("camera-record").addEventListener("click", () => {
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => { closeCamera(); check(new File(parts, "camera.webm", { type: recorder.mimeType })); };
  recorder.start();
  $("camera-record").disabled = true;
  setTimeout(() => { $("camera-record").disabled = false; recorder.stop(); }, 5000);
});

prepare();
