// Asking the server: keys, problems in words, uploads with progress.

const KEY = "unmask-key";

export class Problem extends Error {
  constructor(body) {
    super(body.detail || "The server does not answer.");
    this.code = body.code || "unreachable";
    this.fix = body.fix || "";
    this.status = body.status || 0;
    this.requestId = body.request_id || "";
  }
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function checked(answer) {
  if (answer.ok) return answer;
  let body = { status: answer.status, detail: `The server answered ${answer.status}.` };
  try { body = await answer.json(); } catch { /* not one of our answers */ }
  throw new Problem(body);
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ detail: "The server cannot be reached.", fix: "Check that it runs, and your connection." });
  }
  return checked(answer);
}

export async function read(path, options) {
  return (await ask(path, options)).json();
}

export async function picture(path) {
  return URL.createObjectURL(await (await ask(path)).blob());
}

export function send(path, body) {
  return read(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

// fetch cannot tell how far an upload is, XMLHttpRequest can.
export function upload(path, form, onProgress, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => { if (event.lengthComputable) onProgress(event.loaded / event.total); };
    request.onload = () => {
      let body = {};
      try { body = JSON.parse(request.responseText); } catch { body = { status: request.status }; }
      if (request.status >= 200 && request.status < 300) resolve(body); else reject(new Problem(body));
    };
    request.onerror = () => reject(new Problem({
      detail: "The connection broke while the file was sent.", fix: "Check that the server runs, and try again.",
    }));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
