// What the page shows, and what changes it. The truth is on the server's disk: the board's file and the run folder.

import { useEffect, useState } from "preact/hooks";
import * as server from "./server.js";

const state = {
  boards: null, // version by name, once they are known
  name: "",
  board: null,
  typed: {}, // by field path: what is typed and not written yet, or cannot be
  rejected: [], // mistakes of what is typed
  selected: 0,
  notice: null, // {text, actions}
  online: true,
  progress: null, // {section, step, begun, first} of the film at work
  report: null,
  left: null,
  drawn: 0, // counts the pictures of what is sampled
  take: 0, // counts up when there is more of the film to see
  saving: false,
};
const listeners = new Set();

export function set(part) {
  Object.assign(state, part);
  for (const hear of listeners) hear();
}

export const now = () => state;

// Draws again when what `pick` takes of the state has changed.
export function useStudio(pick) {
  const [, draw] = useState(0);
  const seen = pick(state);
  useEffect(() => {
    let last = seen;
    const hear = () => {
      const next = pick(state);
      if (!Object.is(next, last)) {
        last = next;
        draw((count) => count + 1);
      }
    };
    listeners.add(hear);
    hear();
    return () => listeners.delete(hear);
  }, [seen]);
  return seen;
}

// The newer one, but its parts that say the same are the older one's, so that only what changed is drawn.
function merged(older, newer) {
  if (older === newer || typeof older !== "object" || typeof newer !== "object" || !older || !newer) return newer;
  if (Array.isArray(older) !== Array.isArray(newer)) return newer;
  let same = Object.keys(older).length === Object.keys(newer).length;
  const made = Array.isArray(newer) ? [] : {};
  for (const key of Object.keys(newer)) {
    made[key] = merged(older[key], newer[key]);
    same &&= key in older && Object.is(made[key], older[key]);
  }
  return same ? older : made;
}

export function say(text, ...actions) {
  set({ notice: text ? { text, actions } : null });
}

const told = (error) => say(error.message);

// --- boards ----------------------------------------------------------------------------------------------------------

let past = [];
let future = [];

export async function open(name) {
  if (state.name === name) return load();
  try {
    const board = await server.getBoard(name);
    past = [];
    future = [];
    heard?.source.close();
    heard = null;
    const fresh = { typed: {}, rejected: [], selected: 0, report: null, left: null, progress: null };
    set({ name, board, ...fresh });
    if (location.hash.slice(1) !== name) location.hash = name;
    show(board, null);
  } catch (error) {
    told(error);
  }
}

export async function load() {
  const { name } = state;
  try {
    const board = await server.getBoard(name);
    if (name === state.name) show(board);
  } catch (error) {
    told(error);
  }
}

function show(board, before = state.board) {
  const made = merged(before, board);
  document.title = `${made.fields?.title || made.name} · studio`;
  const last = Math.max(0, scenesOf(made).length - 1);
  set({ board: made, selected: Math.min(state.selected, last) });
  if (made.busy) follow(made.name, made.busy);
  const over = before?.busy && !made.busy;
  if (!before || over || before.film?.state !== made.film?.state) loadReport();
  if (!made.busy && (!before || over || before.version !== made.version || before.film !== made.film)) lookLeft();
}

export const scenesOf = (board) => (Array.isArray(board?.fields?.scenes) ? board.fields.scenes : []);

export async function begin() {
  try {
    const board = await server.newBoard();
    await open(board.name);
    say(`${board.name}.yaml is there: a first film, which the packaged model renders. Press Render.`);
  } catch (error) {
    told(error);
  }
}

// --- changes, one after another -----------------------------------------------------------------------------------

let line = Promise.resolve();

export function change(...changes) {
  line = line.then(() => write((board) => server.changeBoard(board.name, board.version, changes), changes));
  return line;
}

async function write(send, changes) {
  const paths = changes.map((one) => one.path).filter(Boolean);
  const { board } = state;
  if (!board) return;
  set({ saving: true });
  try {
    const made = await send(board);
    if (made.text !== board.text) {
      past.push(board.text);
      future = [];
    }
    forget(paths, changes);
    show(made);
    if (state.notice?.stale) say("");
  } catch (error) {
    if (error.status === 409 && error.message.includes("meanwhile")) {
      await load();
      const again = () => change(...changes);
      say("The file was changed outside meanwhile; it is shown as it is now, and your change is not in it.",
        ["Write it", again], ["Drop it", () => { forget(paths, changes); say(""); }]);
      state.notice.stale = true;
    } else if (error.mistakes.length && paths.length) {
      const others = state.rejected.filter((one) => !paths.includes(one.path));
      set({ rejected: [...others, ...error.mistakes.filter((one) => !others.some((had) => had.path === one.path))] });
    } else told(error);
  } finally {
    set({ saving: false });
  }
}

function forget(paths, changes) {
  const typed = { ...state.typed };
  for (const { path, value } of changes) {
    if (path && String(typed[path] ?? value ?? "") === String(value ?? "")) delete typed[path];
  }
  set({ typed, rejected: state.rejected.filter((one) => !paths.includes(one.path)) });
}

const waiting = new Map();

// What is typed into a field: shown at once, written after a pause.
export function type(path, shown, value = shown, pause = 500) {
  set({ typed: { ...state.typed, [path]: shown } });
  clearTimeout(waiting.get(path)?.timer);
  const send = () => {
    waiting.delete(path);
    change({ path, value });
  };
  waiting.set(path, { send, timer: setTimeout(send, pause) });
}

export function flush(path) {
  const held = waiting.get(path);
  if (held) {
    clearTimeout(held.timer);
    held.send();
  }
}

// Reads a field's value: what is typed, else what the file has.
export function fieldOf(board, typed, path) {
  if (path in typed) return typed[path];
  let value = board?.fields;
  for (const part of path.match(/[^.[\]]+/g)) value = value?.[part];
  return value ?? "";
}

export const problemAt = (board, rejected, path) =>
  rejected.find((one) => one.path === path)?.message ?? board?.problems.find((one) => one.path === path)?.message;

export function writeText(text) {
  line = line.then(() => write((board) => server.putText(board.name, board.version, text), []));
  return line;
}

async function step(from, to) {
  const { board } = state;
  const text = from.pop();
  if (text === undefined || !board) return;
  try {
    const made = await server.putText(board.name, board.version, text);
    to.push(board.text);
    set({ typed: {}, rejected: [] });
    show(made);
  } catch (error) {
    from.push(text);
    if (error.status === 409) await load();
    told(error);
  }
}

export const undo = () => (line = line.then(() => step(past, future)));
export const redo = () => (line = line.then(() => step(future, past)));

// --- scenes --------------------------------------------------------------------------------------------------------

export const select = (index) => set({ selected: Math.max(0, Math.min(index, scenesOf(state.board).length - 1)) });

export async function addScene(at) {
  const scenes = scenesOf(state.board);
  const taken = new Set(scenes.map((scene) => scene.id));
  let number = scenes.length + 1;
  while (taken.has(`scene-${number}`)) number += 1;
  const prompt = scenes[at - 1]?.prompt || scenes[0]?.prompt || "what is seen and what happens";
  const seconds = state.board.plan?.step_seconds ?? 1.2;
  await change({ insert: at, scene: { id: `scene-${number}`, prompt, seconds: Math.max(seconds, 0.5) } });
  select(at);
}

export async function removeScene(index) {
  if (scenesOf(state.board).length < 2) return say("A film has at least one scene.");
  await change({ remove: index });
  say("The scene is out.", ["Undo", undo]);
}

export async function moveScene(index, to) {
  if (to < 0 || to >= scenesOf(state.board).length || to === index) return;
  await change({ move: index, to });
  select(to);
}

export async function dropImage(path, file) {
  try {
    const name = await server.putImage(file);
    await change({ path, value: name });
  } catch (error) {
    told(error);
  }
}

// --- the film ------------------------------------------------------------------------------------------------------

let heard = null; // events of the film at work

export async function render(ask = server.renderBoard) {
  try {
    await line;
    await ask(state.board.name);
    say("");
    await load();
  } catch (error) {
    told(error);
  }
}

export const draftOf = (name) => `${name}-draft`;
export const draft = () => render(server.draftBoard);
export const renderTakes = (scene, count) => render((name) => server.renderTakes(name, scene, count));

export function pick(scene, take, lock) {
  const changes = [];
  line = line.then(() => write((board) => server.pickTake(board.name, scene, board.version, take, lock), changes));
  return line;
}

export async function cancel() {
  try {
    await server.cancelFilm(state.board.busy);
    await load();
  } catch (error) {
    told(error);
  }
}

// Hears what happens to `work`, the film of a board or takes of it.
function follow(name, work) {
  if (heard?.work === work && heard.source.readyState !== EventSource.CLOSED) return;
  heard?.source.close();
  const source = new EventSource(`${server.film(work)}/events`);
  heard = { work, source };
  set({ progress: { section: -1, step: 0, begun: performance.now(), first: null } });
  source.onmessage = ({ data }) => hear(name, work, JSON.parse(data));
  source.addEventListener("state", ({ data }) => seen(name, work, JSON.parse(data)));
  source.addEventListener("end", ({ data }) => {
    source.close();
    heard = null;
    const film = JSON.parse(data);
    seen(name, work, film);
    if (work !== name && film.why) say(film.why);
    set({ progress: null });
    load();
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
  if (name !== state.name || !part) return;
  const before = state.board[part];
  const grown = doneOf(film) !== doneOf(before) || film.state !== before?.state;
  set({ board: merged(state.board, { ...state.board, [part]: film }), take: state.take + (grown ? 1 : 0) });
}

async function loadReport() {
  const { name, board } = state;
  const report = board?.film?.files["report.json"] ? await server.getReport(name).catch(() => null) : null;
  if (name === state.name) set({ report, take: state.take + 1 });
}

let looking = 0;

function lookLeft() {
  clearTimeout(looking);
  looking = setTimeout(async () => {
    const { name, board } = state;
    const left = board?.plan ? await server.getLeft(name).catch((error) => ({ wrong: error.message })) : null;
    if (name === state.name) set({ left });
  }, 700);
}

// --- what happens outside --------------------------------------------------------------------------------------------

export function listen() {
  const source = new EventSource("/changes");
  source.onopen = () => {
    if (!state.online) {
      heard?.source.close();
      heard = null;
      if (state.name) load();
    }
    set({ online: true });
  };
  source.onerror = () => {
    set({ online: false });
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
  source.onmessage = ({ data }) => {
    const boards = JSON.parse(data);
    set({ boards: merged(state.boards, boards) });
    line = line.then(async () => {
      const { name, board } = state;
      const wanted = location.hash.slice(1);
      if (!name && Object.keys(boards).length) await open(wanted in boards ? wanted : Object.keys(boards)[0]);
      else if (name && !(name in boards)) say(`${name}.yaml is gone from the folder.`);
      else if (board && boards[name] !== board.version) {
        const current = await server.listBoards().catch(() => boards);
        if (current[name] !== state.board.version) await load();
      }
    });
  };
  addEventListener("hashchange", () => {
    const name = location.hash.slice(1);
    if (name && name !== state.name) open(name);
  });
}
