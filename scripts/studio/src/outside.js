// What happens outside: other programs change boards, the window is left, the server goes away and comes back.

import { enter, flush, load, open, queue, unsaved } from "./edit.js";
import { unfollow } from "./film.js";
import * as server from "./server.js";
import { merged, say, set, state } from "./store.js";

let source = null;

// A window that nobody looks at holds no connection: a browser has six to a server, for all its windows together.
function attend() {
  if (source || document.hidden) return;
  source = new EventSource("/changes");
  source.onopen = () => {
    if (!state.online) {
      unfollow();
      if (state.name) queue(() => load());
    }
    set({ online: true });
  };
  source.onerror = ({ target }) => {
    set({ online: false });
    if (target.readyState === EventSource.CLOSED) {
      leave();
      setTimeout(attend, 2000);
    }
  };
  source.addEventListener("left-out", ({ data }) => set({ leftOut: JSON.parse(data) }));
  source.onmessage = ({ data }) => {
    const boards = JSON.parse(data);
    set({ boards: merged(state.boards, boards) });
    queue(() => compare(boards));
  };
}

function leave() {
  source?.close();
  source = null;
  unfollow();
}

async function compare(boards) {
  const { name, board } = state;
  const [first] = Object.keys(boards);
  const wanted = location.hash.slice(1);
  if (!name && first) {
    await enter(wanted in boards ? wanted : first);
    if (wanted && !(wanted in boards)) missing(wanted);
  } else if (name && !(name in boards)) set({ notice: { text: `${name}.yaml is gone from the folder.`, actions: [], gone: true } });
  else if (state.notice?.gone) say("");
  if (board && name in boards && boards[name] !== board.version) {
    const current = await server.listBoards().catch(() => boards);
    if (current[name] !== state.board.version) await load();
  }
}

const missing = (wanted) => say(`There is no storyboard ${wanted.slice(0, 64)} in this folder; ${state.name} is shown.`);

export function listen() {
  const shown = () => {
    if (source || document.hidden) return;
    attend();
    if (state.name) queue(() => load());
  };
  const gone = () => {
    flush();
    leave();
  };
  addEventListener("hashchange", () => {
    const name = location.hash.slice(1);
    if (!name || name === state.name) return;
    if (state.boards && !(name in state.boards)) {
      if (state.name) location.hash = state.name;
      missing(name);
    } else open(name);
  });
  addEventListener("pagehide", gone);
  addEventListener("pageshow", shown);
  addEventListener("visibilitychange", () => (document.hidden ? gone() : shown()));
  addEventListener("beforeunload", (event) => unsaved() && event.preventDefault());
  attend();
}
