// What the page asks of the service; every route is described in /openapi.json.

export class Refused extends Error {
  constructor(status, detail) {
    super(typeof detail === "string" ? detail : detail.map((one) => (one.path ? `${one.path}: ` : "") + one.message).join("; "));
    this.status = status;
    this.mistakes = Array.isArray(detail) ? detail : [];
  }
}

async function ask(method, url, body) {
  const raw = body instanceof Blob;
  const sent = raw || body === undefined ? body : JSON.stringify(body);
  const keepalive = typeof sent === "string" && sent.length < 20000; // it is sent though the page goes
  const headers = body === undefined ? {} : { "Content-Type": raw ? "application/octet-stream" : "application/json" };
  let answer;
  try {
    answer = await fetch(url, { method, headers, body: sent, keepalive });
  } catch {
    throw new Refused(0, "the studio's server does not answer; is it still running?");
  }
  const said = await answer.json().catch(() => null);
  if (!answer.ok) throw new Refused(answer.status, said?.detail ?? `the server answers ${answer.status}`);
  return said;
}

const board = (name) => `/boards/${encodeURIComponent(name)}`;
export const film = (name) => `/films/${name}`;

export const listBoards = () => ask("GET", "/boards");
export const newBoard = () => ask("POST", "/boards");
export const getBoard = (name) => ask("GET", board(name));
export const changeBoard = (name, version, changes, dry = false) =>
  ask("PATCH", board(name), { version, changes, dry });
export const putText = (name, version, text) => ask("PUT", board(name), { version, text });
export const putImage = (file) => ask("PUT", `/images/${encodeURIComponent(file.name)}`, file);
export const imageUrl = (path) =>
  typeof path === "string" ? `/images/${path.split("/").map(encodeURIComponent).join("/")}` : undefined;
export const getLeft = (name) => ask("GET", `${board(name)}/left`);
export const renderBoard = (name) => ask("POST", `${board(name)}/film`);
const takes = (name, scene) => `${board(name)}/takes/${encodeURIComponent(scene)}`;
export const renderTakes = (name, scene, count) => ask("POST", `${takes(name, scene)}?count=${count}`);
export const pickTake = (name, scene, version, take, lock) => ask("PUT", takes(name, scene), { version, take, lock });
export const takeUrl = (name, scene, take) => `${takes(name, scene)}/${take}.png`;
export const draftBoard = (name) => ask("POST", `${board(name)}/draft`);
export const cancelFilm = (name) => ask("DELETE", film(name));
export const getFilm = (name) => ask("GET", film(name));
export const getReport = (name) => ask("GET", `${film(name)}/report.json`);
