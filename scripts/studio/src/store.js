// What the page shows, and who draws it. The truth is on the server's disk: the board's file and the run folder.

import { useEffect, useState } from "preact/hooks";

export const state = {
  boards: null, // version by name, once they are known
  leftOut: {}, // why, by file
  name: "",
  board: null,
  typed: {}, // by field path: what is typed and not written yet, or cannot be
  rejected: [], // mistakes of what is typed
  text: null, // {version, text}: the whole file as it is typed, and the version that it was typed on
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
export function merged(older, newer) {
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

export const told = (error) => say(error.message);

export const scenesOf = (board) => (Array.isArray(board?.fields?.scenes) ? board.fields.scenes : []);
