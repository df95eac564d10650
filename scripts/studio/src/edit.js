// Storyboards as they lie on the disk, and what changes them: one request after another, each for the board on which the
// change was made and for no other state of its file.

import { follow, loadReport, lookLeft, unfollow } from "./film.js";
import * as server from "./server.js";
import { merged, say, scenesOf, set, state, told } from "./store.js";

// By board what the page knows of its file: version and text; `epoch` counts what others have written; past and future
// are for undo and redo; `hand` is what was typed and not written when another board was opened.
const files = {};
const CLEAN = { typed: {}, rejected: [], text: null };
let line = Promise.resolve();

// One after another. Gives what the task gives; where it fails that is told.
export const queue = (task) => (line = line.then(task).catch(told));

// --- boards ----------------------------------------------------------------------------------------------------------

export function open(name) {
  flush();
  return queue(() => enter(name));
}

export async function enter(name) {
  if (state.name === name) return load();
  try {
    const board = await server.getBoard(name);
    flush(); // what was typed while it was fetched
    if (state.name) files[state.name].hand = handOf(state);
    unfollow();
    know(board);
    set({ name, board, ...CLEAN, ...files[name].hand, selected: 0, report: null, left: null, progress: null });
    if (location.hash.slice(1) !== name) location.hash = name;
    draw(board, null);
  } catch (error) {
    told(error);
    set({ boards: { ...state.boards } }); // the choice shows again what is open
    if (state.name) location.hash = state.name;
  }
}

export async function load(name = state.name) {
  const board = await server.getBoard(name);
  know(board);
  draw(board);
}

// Takes note of what the file holds. What others wrote cannot be undone here, and changes made before it are stale.
function know(board, ours = false) {
  const ids = scenesOf(board).map(({ id }) => id);
  const had = files[board.name] ?? { epoch: 0, past: [], future: [], version: board.version, ids };
  const others = ours || had.version === board.version ? {} : { epoch: had.epoch + 1, past: [], future: [] };
  files[board.name] = { ...had, ...others, version: board.version, text: board.text, ids };
  if (String(had.ids) === String(ids)) return;
  const { typed, rejected } = inHand(board.name);
  const place = placing(had.ids, ids);
  const paths = Object.entries(typed).map(([path, value]) => [placed(path, place), value]);
  hold(board.name, { typed: Object.fromEntries(paths), rejected: rejected.map((one) => ({ ...one, path: placed(one.path, place) })) });
}

// Where a scene stands now that stood at `index`: by its name, which may be new; -1 where it is gone.
const placing = (before, now) => (index) => {
  const at = now.indexOf(before[index]);
  return at < 0 && before.length === now.length ? index : at;
};
const placed = (path, place) => path.replace(/^scenes\[(\d+)\]/, (_, index) => `scenes[${place(Number(index))}]`);

function draw(board, before = state.board) {
  if (board.name !== state.name) return;
  const made = merged(before, board);
  document.title = `${made.fields?.title || made.name} · studio`;
  const last = Math.max(0, scenesOf(made).length - 1);
  set({ board: made, selected: Math.min(state.selected, last) });
  if (made.busy) follow(made.name, made.busy);
  else if (state.progress) set({ progress: null });
  const over = before?.busy && !made.busy;
  if (!before || over || before.film?.state !== made.film?.state) loadReport();
  if (!made.busy && (!before || over || before.version !== made.version || before.film !== made.film)) lookLeft();
}

export async function begin() {
  try {
    const board = await server.newBoard();
    await open(board.name);
    say(`${board.name}.yaml is there: a first film, which the packaged model renders. Press Render.`);
  } catch (error) {
    told(error);
  }
}

// --- changes ---------------------------------------------------------------------------------------------------------

const here = () => ({ name: state.name, epoch: files[state.name]?.epoch, ids: files[state.name]?.ids });
const handOf = ({ typed, rejected, text }) => ({ typed, rejected, text });

// What is typed and not written on a board, whether it is open or not.
const inHand = (name) => (name === state.name ? handOf(state) : { ...CLEAN, ...files[name]?.hand });
const hold = (name, part) => (name === state.name ? set(part) : (files[name].hand = { ...inHand(name), ...part }));

export function change(...changes) {
  flush();
  return submit(here(), changes);
}

// Gives whether it was written.
function submit(at, changes, shown) {
  const paths = changes.map((one) => one.path).filter(Boolean);
  const place = (index) => placing(at.ids, files[at.name].ids)(index);
  const again = () => {
    const { epoch, ids } = files[at.name];
    const moved = changes.map(({ path, remove, move, ...rest }) => ({
      ...rest,
      ...(path !== undefined && { path: placed(path, place) }),
      ...(remove !== undefined && { remove: place(remove) }),
      ...(move !== undefined && { move: place(move) }),
    }));
    const gone = moved.some(({ path, remove, move }) => path?.startsWith("scenes[-1]") || remove < 0 || move < 0);
    if (gone) say(`The scene is gone from ${at.name}.yaml; your change to it is not written.`);
    else submit({ ...at, epoch, ids }, moved, shown);
  };
  return queue(() =>
    write({
      at,
      paths,
      send: (version) => server.changeBoard(at.name, version, changes),
      done: () => forget(at.name, paths, shown),
      again,
      drop: () => forget(at.name, paths.map((path) => placed(path, place))),
    }),
  );
}

// Of fields what is typed, but not what was typed since.
function forget(name, paths, shown) {
  const { typed, rejected } = inHand(name);
  const newer = (path) => (shown === undefined ? waiting.has(`${name} ${path}`) : typed[path] !== shown);
  const kept = Object.entries(typed).filter(([path]) => !paths.includes(path) || newer(path));
  hold(name, { typed: Object.fromEntries(kept), rejected: rejected.filter((one) => !paths.includes(one.path)) });
}

const STALE = "it is shown as it is now, and your change is not in it.";
let refused = []; // what was made on an older state of a file, and waits for a word

async function write(one) {
  const { at, paths } = one;
  const file = files[at.name];
  set({ saving: true });
  try {
    if (file.epoch !== at.epoch) throw new server.Refused(409, "changed meanwhile");
    const made = await one.send(file.version);
    if (made.text !== file.text) Object.assign(file, { past: [...file.past, file.text], future: [] });
    know(made, true);
    one.done(made);
    draw(made);
    refused = refused.filter((had) => had.at.name !== at.name || !had.paths.some((path) => paths.includes(path)));
    if (!refused.length && state.notice?.refused) say("");
    return true;
  } catch (error) {
    if (error.status === 409 && error.message.includes("meanwhile")) await refuse(one);
    else if (error.mistakes?.length && paths.length) {
      const others = inHand(at.name).rejected.filter((had) => !paths.includes(had.path));
      hold(at.name, { rejected: [...others, ...error.mistakes.map((mistake) => madeBy(mistake, paths))] });
    } else told(error);
    return false;
  } finally {
    set({ saving: false });
  }
}

// A mistake where it was made: a change may be one at another field, which stays as it is.
const madeBy = ({ path, message }, paths) =>
  paths.includes(path) ? { path, message } : { path: paths[0], message: path ? `${path}: ${message}` : message };

async function refuse(one) {
  await load(one.at.name);
  const again = (had) => had.at.name === one.at.name && had.paths.length && String(had.paths) === String(one.paths);
  refused = [...refused.filter((had) => !again(had)), one];
  const all = (act) => () => {
    const waited = refused;
    refused = [];
    say("");
    waited.forEach(act);
  };
  const text = `${one.at.name}.yaml was changed outside meanwhile; ${one.stale ?? STALE}`;
  const actions = [["Write it", all((each) => each.again())], ["Drop it", all((each) => each.drop())]];
  set({ notice: { text, actions, refused: true } });
}

// Takes a message away, but for one that waits for a word.
export const hush = () => !state.notice?.refused && say("");

const waiting = new Map(); // by board and field path

// What is typed into a field: shown at once, written after a pause.
export function type(path, shown, value = shown, pause = 500) {
  set({ typed: { ...state.typed, [path]: shown } });
  const key = `${state.name} ${path}`;
  const at = waiting.get(key)?.at ?? here();
  clearTimeout(waiting.get(key)?.timer);
  const send = () => {
    waiting.delete(key);
    submit(at, [{ path, value }], shown);
  };
  waiting.set(key, { at, send, timer: setTimeout(send, pause) });
}

// Writes at once what is typed into a field, or into all of them.
export function flush(path) {
  for (const [key, { timer, send }] of [...waiting]) {
    if (path === undefined || key === `${state.name} ${path}`) {
      clearTimeout(timer);
      send();
    }
  }
}

// Whether something would be lost with the page.
export const unsaved = () =>
  refused.length > 0 || (state.saving && waiting.size > 0) || Object.keys(files).some((name) => {
    const { typed, text } = inHand(name);
    return text || Object.keys(typed).some((path) => !waiting.has(`${name} ${path}`));
  });

// Reads a field's value: what is typed, else what the file has.
export function fieldOf(board, typed, path) {
  if (path in typed) return typed[path];
  let value = board?.fields;
  for (const part of path.match(/[^.[\]]+/g)) value = value?.[part];
  return value ?? "";
}

export const problemAt = (board, rejected, path) =>
  rejected.find((one) => one.path === path)?.message ?? board?.problems.find((one) => one.path === path)?.message;

// --- the whole text --------------------------------------------------------------------------------------------------

export function typeText(lines) {
  const text = state.board.text.includes("\r\n") ? lines.replaceAll("\n", "\r\n") : lines;
  const version = state.text?.version ?? state.board.version;
  set({ text: text === state.board.text && version === state.board.version ? null : { version, text } });
}

export function writeText() {
  flush();
  return submitText(state.name, state.text);
}

function submitText(name, typed, over = false) {
  const stale = "what you typed was made from an older text, and would take the place of all that is in it now.";
  return queue(() =>
    write({
      at: { name, epoch: files[name].epoch },
      paths: ["text"],
      stale,
      send: (version) => server.putText(name, over ? version : typed.version, typed.text),
      done({ version }) {
        const { text } = inHand(name);
        hold(name, { text: !text || text.text === typed.text ? null : { ...text, version } });
      },
      again: () => submitText(name, typed, true),
      drop: () => hold(name, { text: null }),
    }),
  );
}

function step(from, to) {
  const { name } = state;
  flush();
  return queue(async () => {
    const file = files[name];
    const text = file?.[from].at(-1);
    if (text === undefined) return say(`There is nothing to ${from === "past" ? "undo" : "redo"}; what others have written stays.`);
    try {
      const made = await server.putText(name, file.version, text);
      Object.assign(file, { [from]: file[from].slice(0, -1), [to]: [...file[to], file.text] });
      know(made, true);
      forget(name, Object.keys(inHand(name).typed));
      hold(name, { rejected: [] });
      draw(made);
    } catch (error) {
      if (error.status === 409) await load(name);
      throw error;
    }
  });
}

export const undo = () => step("past", "future");
export const redo = () => step("future", "past");

// --- scenes ----------------------------------------------------------------------------------------------------------

export const select = (index) => set({ selected: Math.max(0, Math.min(index, scenesOf(state.board).length - 1)) });

export async function addScene(at) {
  const scenes = scenesOf(state.board);
  const taken = new Set(scenes.map((scene) => scene.id));
  let number = scenes.length + 1;
  while (taken.has(`scene-${number}`)) number += 1;
  const prompt = scenes[at - 1]?.prompt || scenes[0]?.prompt || "what is seen and what happens";
  const seconds = state.board.plan?.step_seconds ?? 1.2;
  const scene = { id: `scene-${number}`, prompt, seconds: Math.max(seconds, 0.5) };
  if (await change({ insert: at, scene })) select(at);
}

export async function removeScene(index) {
  if (scenesOf(state.board).length < 2) return say("A film has at least one scene.");
  if (await change({ remove: index })) say("The scene is out.", ["Undo", undo]);
}

export async function moveScene(index, to) {
  if (to < 0 || to >= scenesOf(state.board).length || to === index) return;
  if (await change({ move: index, to })) select(to);
}

export async function dropImage(path, file) {
  const at = here();
  try {
    const value = await server.putImage(file);
    hush();
    await submit(at, [{ path, value }]);
  } catch (error) {
    told(error);
  }
}

export function pick(scene, take, lock) {
  flush();
  const made = (at) =>
    queue(() =>
      write({
        at,
        paths: [],
        send: (version) => server.pickTake(at.name, scene, version, take, lock),
        done() {},
        again: () => made({ ...at, epoch: files[at.name].epoch }),
        drop() {},
      }),
    );
  return made(here());
}
