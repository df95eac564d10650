import "./studio.css";
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { FilmForm, SceneForm } from "./forms.jsx";
import { Player } from "./player.jsx";
import * as studio from "./state.js";
import { Strip } from "./strip.jsx";
import { TextEditor } from "./text.jsx";

const { useStudio } = studio;
const THEMES = ["auto", "light", "dark"];

function Theme() {
  const [theme, choose] = useState(localStorage.theme ?? "auto");
  useEffect(() => {
    localStorage.theme = theme;
    document.documentElement.dataset.theme = theme;
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return (
    <button type="button" class="plain" id="theme" onClick={() => choose(next)} title={`Look: ${theme}`}>
      <span aria-hidden="true">{{ auto: "◐", light: "☀", dark: "☾" }[theme]}</span>
      <span class="sr">Look: {theme}; change to {next}</span>
    </button>
  );
}

function Bar() {
  const boards = useStudio((state) => state.boards);
  const name = useStudio((state) => state.name);
  const saving = useStudio((state) => state.saving);
  const online = useStudio((state) => state.online);
  const unsaved = useStudio((state) => Boolean(state.text) || Object.keys(state.typed).length > 0);
  const names = Object.keys(boards ?? {});
  return (
    <header>
      <h1>
        framepack-relax <span>studio</span>
      </h1>
      {names.length > 0 && (
        <label class="board">
          <span class="sr">Storyboard</span>
          <select id="board" value={name} onChange={(event) => studio.open(event.currentTarget.value)}>
            {names.map((each) => (
              <option key={each} value={each}>
                {each}.yaml
              </option>
            ))}
          </select>
        </label>
      )}
      <button type="button" class="plain" id="new" onClick={studio.begin}>
        New film
      </button>
      <span class="space" />
      <span id="saved" class="quiet" data-saving={saving}>
        {!online ? "no connection" : saving ? "saving…" : unsaved ? "not saved" : name ? "saved" : ""}
      </span>
      <button type="button" class="plain" id="undo" onClick={studio.undo} title="Undo (Ctrl+Z)">
        <span aria-hidden="true">↶</span> <span class="sr">Undo</span>
      </button>
      <button type="button" class="plain" id="redo" onClick={studio.redo} title="Redo (Ctrl+Shift+Z)">
        <span aria-hidden="true">↷</span> <span class="sr">Redo</span>
      </button>
      <Theme />
    </header>
  );
}

function Notice() {
  const notice = useStudio((state) => state.notice);
  const online = useStudio((state) => state.online);
  const shown = online ? notice : { text: "The studio's server does not answer; the page tries again by itself.", actions: [] };
  return (
    <div id="notice" role="status" data-shown={Boolean(shown)}>
      {shown && <span>{shown.text}</span>}
      {shown?.actions.map(([label, act]) => (
        <button type="button" key={label} onClick={act}>
          {label}
        </button>
      ))}
      {notice && online && (
        <button type="button" class="plain" onClick={() => studio.say("")}>
          <span aria-hidden="true">✕</span>
          <span class="sr">Close the message</span>
        </button>
      )}
    </div>
  );
}

// Files of the folder that are not shown.
const toldOf = (leftOut) => Object.entries(leftOut).map(([file, why]) => `${file} is left out: ${why}`);

function Warnings() {
  const board = useStudio((state) => state.board);
  const leftOut = useStudio((state) => state.leftOut);
  const [open, show] = useState(false);
  const problems = board.problems;
  const warnings = [...(board.plan?.warnings ?? []), ...toldOf(leftOut)];
  if (!problems.length && !warnings.length) return null;
  const shown = open ? warnings : warnings.slice(0, 1);
  return (
    <section id="told" aria-label="Mistakes and roundings">
      <ul>
        {problems.map((one) => (
          <li key={one.path + one.message} class="mistake">
            {one.line && <code>{one.line}:{one.column}</code>} {one.path && <b>{one.path}</b>} {one.message}
          </li>
        ))}
        {shown.map((text) => (
          <li key={text}>{text}</li>
        ))}
      </ul>
      {warnings.length > 1 && (
        <button type="button" class="plain" onClick={() => show(!open)}>
          {open ? "fewer" : `${warnings.length - 1} more`}
        </button>
      )}
    </section>
  );
}

const TABS = [
  ["scene", "Scene"],
  ["film", "Film"],
  ["text", "Text"],
];

function Tabs() {
  const [tab, show] = useState("scene");
  const turn = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const place = TABS.findIndex(([name]) => name === tab) + step;
    const next = TABS[(place + TABS.length) % TABS.length][0];
    show(next);
    document.getElementById(`tab-${next}`).focus();
  };
  return (
    <section id="inspector" aria-label="Settings">
      <div role="tablist" aria-label="What is edited" onKeyDown={turn}>
        {TABS.map(([name, label]) => (
          <button type="button" role="tab" key={name} id={`tab-${name}`} aria-selected={tab === name}
            aria-controls="panel" tabIndex={tab === name ? 0 : -1} onClick={() => show(name)}>
            {label}
          </button>
        ))}
      </div>
      <div role="tabpanel" id="panel" aria-labelledby={`tab-${tab}`}>
        {tab === "scene" ? <SceneForm /> : tab === "film" ? <FilmForm /> : <TextEditor />}
      </div>
    </section>
  );
}

function Welcome() {
  const boards = useStudio((state) => state.boards);
  const leftOut = useStudio((state) => state.leftOut);
  if (boards === null || Object.keys(boards).length) return <p class="welcome quiet">…</p>;
  return (
    <div class="welcome">
      {toldOf(leftOut).map((text) => (
        <p key={text} class="mistake">
          {text}
        </p>
      ))}
      <h2>No storyboard yet</h2>
      <p>
        A storyboard is a YAML file: scenes with a prompt, a length, and how much is to happen. The first one comes with
        a picture, and a small model that renders on any computer.
      </p>
      <button type="button" class="main" id="begin" onClick={studio.begin}>
        Make a first film
      </button>
    </div>
  );
}

function Page() {
  const there = useStudio((state) => Boolean(state.board));
  return (
    <>
      <Bar />
      <Notice />
      <main>
        {!there ? (
          <Welcome />
        ) : (
          <>
            <div class="upper">
              <Player />
              <Tabs />
            </div>
            <Strip />
            <Warnings />
          </>
        )}
      </main>
    </>
  );
}

addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]), textarea");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) {
    event.preventDefault();
    (event.shiftKey ? studio.redo : studio.undo)();
  }
});
// A file that is dropped beside its place is not opened instead of the page.
for (const kind of ["dragover", "drop"]) {
  addEventListener(kind, (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
}
render(<Page />, document.getElementById("page"));
studio.listen();
