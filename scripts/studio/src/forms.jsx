// The selected scene's fields, and the film's.

import { useState } from "preact/hooks";
import { Curve } from "./curve.jsx";
import { imageUrl, takeUrl } from "./server.js";
import * as studio from "./state.js";

const { useStudio } = studio;

function useField(path) {
  const value = useStudio((state) => studio.fieldOf(state.board, state.typed, path));
  const problem = useStudio((state) => studio.problemAt(state.board, state.rejected, path));
  return [typeof value === "object" ? "" : value, problem];
}

const asNumber = (text) => (text.trim() === "" ? null : Number.isFinite(Number(text)) ? Number(text) : text);
const asText = (text) => (text === "" ? null : text);

// A labelled field of the board; what is wrong with it stands under it.
function Field({ path, label, hint, number, whole, needed, rows, children, ...more }) {
  const [value, problem] = useField(path);
  const id = `field-${path}`;
  const about = [problem && `${id}-wrong`, hint && `${id}-hint`].filter(Boolean).join(" ") || undefined;
  const typed = (event) => {
    const text = rows ? event.currentTarget.value.replaceAll("\n", " ") : event.currentTarget.value;
    studio.type(path, text, number ? asNumber(text) : needed ? text : asText(text));
  };
  const given = {
    id, value, onInput: typed, onBlur: () => studio.flush(path), "aria-invalid": problem ? "true" : undefined,
    "aria-describedby": about, ...more,
  };
  return (
    <div class="field" data-wrong={Boolean(problem)}>
      <label for={id}>{label}</label>
      {rows ? <textarea {...given} rows={rows} /> : <input {...given} inputMode={number ? (whole ? "numeric" : "decimal") : undefined} autocomplete="off" />}
      {children}
      {problem && <p class="mistake" id={`${id}-wrong`}>{problem}</p>}
      {hint && <p class="hint" id={`${id}-hint`}>{hint}</p>}
    </div>
  );
}

function Choice({ path, label, options }) {
  const [value, problem] = useField(path);
  const id = `field-${path}`;
  return (
    <div class="field" data-wrong={Boolean(problem)}>
      <label for={id}>{label}</label>
      <select id={id} value={value || options[0][0]} onChange={(event) => studio.change({ path, value: event.currentTarget.value })}>
        {options.map(([name, said]) => (
          <option key={name} value={name}>{said}</option>
        ))}
      </select>
      {problem && <p class="mistake">{problem}</p>}
    </div>
  );
}

// How a scene follows the one before: in its history, in it with the prompts mixed at the border, or as a new shot.
function Transition({ path, first }) {
  const field = `${path}.transition`;
  const given = useStudio((state) => studio.fieldOf(state.board, {}, field));
  const problem = useStudio((state) => studio.problemAt(state.board, state.rejected, field));
  const blends = typeof given === "object";
  const id = `field-${field}`;
  return (
    <div class="field" data-wrong={Boolean(problem)}>
      <label for={id}>Begins</label>
      <select id={id} value={blends ? "blend" : given || "continue"}
        onChange={({ currentTarget: { value } }) => studio.change({ path: field, value: value === "blend" ? { blend: 2 } : value })}>
        <option value="continue">going on from before</option>
        {(blends || !first) && <option value="blend">going on, prompts mixed</option>}
        <option value="cut">with a cut</option>
      </select>
      {problem && <p class="mistake">{problem}</p>}
      {blends && <Field path={`${field}.blend`} label="Sections that read both prompts" number whole needed hint="2, 4, …: half of them on each side of the border" />}
    </div>
  );
}

const PICTURES = ".png,.jpg,.jpeg,.webp,.bmp,.tif,.tiff,.gif,.ppm"; // what the server takes

function Image({ path, label }) {
  const [value, problem] = useField(path);
  const [over, hover] = useState(false);
  const id = `field-${path}`;
  const drop = (event) => {
    event.preventDefault();
    hover(false);
    const file = event.dataTransfer.files[0];
    if (file) studio.dropImage(path, file);
  };
  return (
    <div class="field" data-wrong={Boolean(problem)}>
      <label for={id}>{label}</label>
      <div class="drop" data-over={over} onDragOver={(event) => { event.preventDefault(); hover(true); }} onDragLeave={() => hover(false)} onDrop={drop}>
        {value && <img src={imageUrl(value)} alt={`start image ${value}`} />}
        <input id={id} type="file" accept={PICTURES} onChange={(event) => event.currentTarget.files[0] && studio.dropImage(path, event.currentTarget.files[0])} />
        <span class="quiet">{value || "drop an image here, or choose one"}</span>
        {value && (
          <button type="button" class="plain" id={`no-${path}`} onClick={() => studio.change({ path, value: null })}>
            Remove <span class="sr">{label}</span>
          </button>
        )}
      </div>
      {problem && <p class="mistake">{problem}</p>}
    </div>
  );
}

function Intensity({ path, planned }) {
  const [value, problem] = useField(path);
  const auto = value === "auto";
  const level = auto ? (planned?.intensity ?? 0) : Number(value) || 0;
  return (
    <div class="field" data-wrong={Boolean(problem)}>
      <label for={`field-${path}`}>Intensity</label>
      <div class="row">
        <input type="range" id={`field-${path}`} min="0" max="1" step="0.05" value={level} disabled={auto}
          onInput={(event) => studio.type(path, Number(event.currentTarget.value), undefined, 150)} onBlur={() => studio.flush(path)} />
        <output>{level.toFixed(2)}</output>
        <label class="check">
          <input type="checkbox" id={`auto-${path}`} checked={auto} onChange={() => studio.change({ path, value: auto ? level : "auto" })} /> by the prompt
        </label>
      </div>
      {problem && <p class="mistake">{problem}</p>}
      {planned && <p class="hint">{planned.at_rest ? "at rest: the plain model" : planned.relaxed}</p>}
    </div>
  );
}

// Takes of a scene: the same past with other noise. The one that is chosen stands in the file.
function Takes({ index, scene }) {
  const name = useStudio((state) => state.name);
  const names = useStudio((state) => state.board.takes[scene.id]) ?? [];
  const busy = useStudio((state) => state.board.busy);
  const rendered = useStudio((state) => state.board.film?.scenes.some((one) => one.scene === scene.id && one.done === one.sections));
  const problem = useStudio((state) => studio.problemAt(state.board, state.rejected, `scenes[${index}].take`));
  const path = `scenes[${index}]`;
  const locked = scene.lock === "true";
  const free = (...fields) => studio.change(...fields.map((field) => ({ path: `${path}.${field}`, value: null })));
  return (
    <section id="takes" class="field" aria-label="Takes">
      <h3>Takes</h3>
      {names.length > 0 && (
        <ul>
          {names.map((take) => (
            <li key={take}>
              <button type="button" class="take" aria-pressed={scene.take === take} title={take}
                onClick={() => (scene.take === take ? free("take", ...(locked ? ["lock"] : [])) : studio.pick(scene.id, take, locked))}>
                <img src={takeUrl(name, scene.id, take)} alt={`take ${take}`} loading="lazy" />
              </button>
            </li>
          ))}
        </ul>
      )}
      <div class="row">
        {!busy && (
          <button type="button" id="more-takes" onClick={() => studio.renderTakes(scene.id, Math.max(names.length - 1, 0) + 3)}>
            Render three {names.length ? "more" : "takes"}
          </button>
        )}
        {(locked || scene.take || rendered) && (
          <label class="check">
            <input type="checkbox" id="lock" checked={locked} onChange={() => (locked ? free("lock") : studio.pick(scene.id, scene.take ?? null, true))} />
            locked: stays as it is, whatever changes around it
          </label>
        )}
      </div>
      {problem && <p class="mistake">{problem}</p>}
    </section>
  );
}

export function SceneForm() {
  const index = useStudio((state) => state.selected);
  const scene = useStudio((state) => studio.scenesOf(state.board)[index]);
  const planned = useStudio((state) => state.board.plan?.scenes[index]);
  const count = useStudio((state) => studio.scenesOf(state.board).length);
  if (!scene) return <p class="quiet">The file cannot be read as scenes; mend it in its text.</p>;
  const path = `scenes[${index}]`;
  const real = planned && Math.abs(planned.real_seconds - planned.asked_seconds) > 0.005;
  return (
    <form id="scene" key={index} onSubmit={(event) => event.preventDefault()}>
      <Field path={`${path}.prompt`} label="Prompt" rows={2} needed />
      <div class="pair">
        <Field path={`${path}.seconds`} label="Seconds" number
          hint={planned ? `${real ? `becomes ${planned.real_seconds.toFixed(2)} s: ` : ""}${planned.sections} ${planned.sections === 1 ? "section" : "sections"}, frames ${planned.frames[0]} to ${planned.frames[1] - 1}` : ""} />
        <Field path={`${path}.id`} label="Name" needed />
      </div>
      <Intensity path={`${path}.intensity`} planned={planned} />
      {planned && <Curve planned={planned} />}
      <div class="pair">
        <Transition path={path} first={!index} />
        <Field path={`${path}.seed`} label="Seed" number whole hint="empty: the film's" />
      </div>
      <Image path={`${path}.image`} label="Start image" />
      <Takes index={index} scene={scene} />
      <div class="row tools">
        <button type="button" id="add-after" onClick={() => studio.addScene(index + 1)}>Add a scene after it</button>
        <button type="button" id="earlier" disabled={!index} onClick={() => studio.moveScene(index, index - 1)}>Earlier</button>
        <button type="button" id="later" disabled={index + 1 === count} onClick={() => studio.moveScene(index, index + 1)}>Later</button>
        <button type="button" id="take-out" disabled={count < 2} onClick={() => studio.removeScene(index)}>Remove</button>
      </div>
    </form>
  );
}

export function FilmForm() {
  const start = useStudio((state) => Boolean(state.board.fields?.start_from));
  return (
    <form id="film" onSubmit={(event) => event.preventDefault()}>
      <Field path="title" label="Title" />
      <Field path="style" label="Style" rows={2} hint="joined to every prompt" />
      <div class="pair">
        <Field path="model" label="Model" hint="puppet, framepack-f1, wan2.2-5b, … or a folder" />
        <Field path="seed" label="Seed" number whole />
      </div>
      <div class="pair">
        <Field path="steps" label="Steps" number whole hint="of denoising, per section" />
        <Choice path="speed" label="Speed" options={[["full", "full"], ["fast", "fast: calm scenes reuse steps"]]} />
      </div>
      {start && <Field path="start_from.strength" label="Strength" number hint="most noise that the draft's latents get, 0 to 1; default 0.6" />}
      <Field path="negative_prompt" label="Negative prompt" />
      <Image path="image" label="Start image of the film" />
    </form>
  );
}
