// The film of a board: rendered, listened to while it is, and what is left of it to do.

import { flush, hush, load, queue } from "./edit.js";
import * as server from "./server.js";
import { merged, say, set, state } from "./store.js";

let heard = null; // events of the film at work

export function render(ask = server.renderBoard) {
  const { name } = state;
  flush();
  return queue(async () => {
    await ask(name);
    hush();
    await load(name);
  });
}

export const draftOf = (name) => `${name}.draft`;
export const draft = () => render(server.draftBoard);
export const renderTakes = (scene, count) => render((name) => server.renderTakes(name, scene, count));

export function cancel() {
  const { name, busy } = state.board;
  return queue(async () => {
    await server.cancelFilm(busy);
    await load(name);
  });
}

// A browser has six connections to a server, for all its windows together: one that nobody looks at holds none.
export function unfollow() {
  heard?.source.close();
  heard = null;
}

// Hears what happens to `work`, the film of a board or takes of it.
export function follow(name, work) {
  if (document.hidden || (heard?.work === work && heard.source.readyState !== EventSource.CLOSED)) return;
  unfollow();
  const source = new EventSource(`${server.film(work)}/events`);
  heard = { work, source };
  set({ progress: { section: -1, step: 0, begun: performance.now(), first: null } });
  source.onmessage = ({ data }) => hear(name, work, JSON.parse(data));
  source.addEventListener("state", ({ data }) => seen(name, work, JSON.parse(data)));
  source.addEventListener("end", ({ data }) => {
    unfollow();
    const film = JSON.parse(data);
    seen(name, work, film);
    if (work !== name && film.why) say(film.why);
    set({ progress: null });
    queue(() => load(name));
  });
}

async function hear(name, work, event) {
  if (name !== state.name) return;
  if (event.kind === "step") {
    const first = state.progress?.first ?? doneOf(state.board?.film);
    set({ progress: { ...state.progress, section: event.section, step: event.step + 1, first } });
  } else if (["section", "shot", "film", "preview"].includes(event.kind)) {
    const film = await server.getFilm(work).catch(() => null);
    if (film) seen(name, work, film);
    if (event.kind === "preview") set({ drawn: state.drawn + 1 });
  } else if (["warning", "error", "take"].includes(event.kind)) say(event.text);
}

export const doneOf = (film) => (film?.scenes ?? []).reduce((sum, scene) => sum + scene.done, 0);

function seen(name, work, film) {
  const part = { [name]: "film", [draftOf(name)]: "draft" }[work];
  if (name !== state.name || !part || !state.board) return;
  const before = state.board[part];
  const grown = doneOf(film) !== doneOf(before) || film.state !== before?.state;
  set({ board: merged(state.board, { ...state.board, [part]: film }), take: state.take + (grown ? 1 : 0) });
}

export async function loadReport() {
  const { name, board } = state;
  const report = board?.film?.files["report.json"] ? await server.getReport(name).catch(() => null) : null;
  if (name === state.name) set({ report, take: state.take + 1 });
}

let looking = 0;

export function lookLeft() {
  clearTimeout(looking);
  looking = setTimeout(async () => {
    const { name, board } = state;
    const left = board?.plan ? await server.getLeft(name).catch((error) => ({ wrong: error.message })) : null;
    if (name === state.name) set({ left });
  }, 700);
}
