// The film as a strip of cards, each as wide as its sections; intensity is dragged up and down, length by the edge.

import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";
import Sortable from "sortablejs";
import { curvePath } from "./curve.jsx";
import { changeBoard, imageUrl } from "./server.js";
import * as studio from "./state.js";
import { thumbsOf } from "./thumbs.js";

const { useStudio } = studio;
const SECOND = 112; // px
const LEAST = 96; // px, of a card
const wide = (seconds) => Math.max(LEAST, seconds * SECOND);

export function Strip() {
  const board = useStudio((state) => state.board);
  const selected = useStudio((state) => state.selected);
  const rejected = useStudio((state) => state.rejected);
  const report = useStudio((state) => state.report);
  const thumbs = useThumbs(board, report);
  const list = useRef();
  const scenes = studio.scenesOf(board);
  const { plan } = board;

  useEffect(() => {
    const sortable = Sortable.create(list.current, {
      handle: ".grip",
      draggable: ".card",
      forceFallback: true, // the same with a mouse, a pen and fingers
      animation: 120,
      onEnd({ item, oldDraggableIndex: from, newDraggableIndex: to }) {
        if (from === to) return;
        const others = [...list.current.querySelectorAll(".card")].filter((card) => card !== item);
        list.current.insertBefore(item, others[from] ?? list.current.querySelector(".add")); // as Preact left it
        studio.moveScene(from, to);
      },
    });
    return () => sortable.destroy();
  }, []);

  const keys = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!event.target.closest(".card") || event.target.closest("[role=slider]")) return;
    if (step && event.altKey) studio.moveScene(selected, selected + step);
    else if (step) studio.select(selected + step);
    else if (event.key === "Delete") studio.removeScene(selected);
    else return;
    event.preventDefault();
    requestAnimationFrame(() => list.current.querySelector(".card.selected .face")?.focus());
  };

  const jumps = jumpsOf(report);
  const done = Object.fromEntries((board.film?.scenes ?? []).map((scene) => [scene.scene, scene.done]));
  const mistaken = new Set([...board.problems, ...rejected].map((one) => Number(one.path.match(/^scenes\[(\d+)/)?.[1])));
  let seconds = 0;
  return (
    <section id="strip" aria-label="Scenes">
      <ol ref={list} onKeyDown={keys}>
        {scenes.map((scene, index) => {
          const planned = plan?.scenes[index];
          const begins = seconds;
          seconds += planned?.real_seconds ?? Number(scene.seconds) ?? 0;
          return (
            <Card key={scene.id || index} scene={scene} index={index} planned={planned} begins={Math.round(begins * 100) / 100}
              step={plan?.step_seconds ?? 1.2} selected={index === selected} wrong={mistaken.has(index)}
              done={done[scene.id] ?? 0} jump={index ? jumps[scene.id] : undefined}
              picture={thumbs[scene.id] ?? pictureOf(board.fields, scenes, index)} />
          );
        })}
        <li class="add">
          <button type="button" id="add" onClick={() => studio.addScene(scenes.length)}>
            <span aria-hidden="true">+</span> Scene
          </button>
        </li>
      </ol>
    </section>
  );
}

function useThumbs(board, report) {
  const [thumbs, show] = useState({});
  useEffect(() => {
    show({});
    return report && board.film?.state === "done" ? thumbsOf(board.name, report, wide, (more) => show((had) => ({ ...had, ...more }))) : undefined;
  }, [board.name, report]);
  return thumbs;
}

// Of each scene the change at its first frame over the usual one, as the film that is there has it.
function jumpsOf(report) {
  const jumps = {};
  for (const section of report?.sections ?? []) jumps[section.scene] ??= section.seam;
  return jumps;
}

// The start image of the shot that a scene belongs to.
function pictureOf(fields, scenes, index) {
  for (let at = index; at >= 0; at -= 1) if (scenes[at].image) return imageUrl(scenes[at].image);
  return fields?.image ? imageUrl(fields.image) : undefined;
}

const Card = memo(function Card({ scene, index, planned, begins, step, selected, wrong, done, jump, picture }) {
  const [tried, tryOut] = useState(null); // the plan of what is dragged
  const element = useRef();
  const shown = tried ?? planned;
  const sections = shown?.sections ?? 1;
  const seconds = shown?.real_seconds ?? (Number(scene.seconds) || step);
  const intensity = scene.intensity === "auto" ? (planned?.intensity ?? 0) : Number(scene.intensity ?? 0) || 0;
  const path = `scenes[${index}]`;
  const tab = selected ? 0 : -1;
  const rounded = shown && Math.abs(shown.asked_seconds - shown.real_seconds) > 0.005;

  useEffect(() => tryOut(null), [planned]);
  useEffect(() => {
    if (selected) element.current.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [selected]);

  return (
    <li ref={element} class={`card ${selected ? "selected" : ""}`} data-cut={scene.transition === "cut"}
      data-wrong={wrong} style={{ width: `${wide(seconds)}px` }} onPointerDown={() => studio.select(index)}
      onDrop={({ dataTransfer: { files } }) => files[0] && studio.dropImage(`${path}.image`, files[0])}>
      {jump !== undefined && (
        <span class="jump" data-high={jump > 8 ? "much" : jump > 3 ? "some" : "none"} title="jump at this border: change at its first frame over the usual one">
          {jump.toFixed(1)}×
        </span>
      )}
      <div class="head">
        <span class="grip" aria-hidden="true" title="drag to move the scene">⠿</span>
        <b title={scene.id}>{scene.id}</b>
        <span class="at">{begins.toFixed(1)} s</span>
      </div>
      <div class="tags">
        {scene.lock === "true" && <span class="tag" title={`locked: take ${scene.take}`}>locked</span>}
        {scene.transition === "cut" && <span class="tag">cut</span>}
        {scene.transition?.blend && <span class="tag" title={`mixed over ${scene.transition.blend} sections`}>blend</span>}
      </div>
      <Stage name={scene.id} index={index} value={intensity} auto={scene.intensity === "auto"} picture={picture} tab={tab} tryOut={tryOut} />
      <svg class="curve" viewBox="0 0 100 24" preserveAspectRatio="none" aria-hidden="true">
        {shown && <path d={curvePath(shown, 100, 24)} />}
      </svg>
      <button type="button" class="face" tabIndex={tab} aria-pressed={selected} onClick={() => studio.select(index)} onFocus={() => studio.select(index)}>
        <span class="sr">Scene {scene.id}: </span>
        <span>{scene.prompt || "no prompt"}</span>
      </button>
      <div class="foot">
        <span>
          {rounded ? `${shown.asked_seconds} → ` : ""}
          {seconds.toFixed(2)} s
        </span>
        <span class="ticks" title={`${sections} sections, ${done} rendered`}>
          {Array.from({ length: Math.min(sections, 24) }, (_, nth) => (
            <i key={nth} data-done={nth < done} />
          ))}
        </span>
      </div>
      <Stretch name={scene.id} path={path} asked={shown?.asked_seconds ?? seconds} seconds={seconds} step={step} tab={tab} element={element} />
    </li>
  );
});

const clamp = (value) => Math.round(Math.max(0, Math.min(1, value)) * 100) / 100;

// Intensity, dragged up and down over the picture. While it is dragged only this element changes.
function Stage({ name, index, value, auto, picture, tab, tryOut }) {
  const element = useRef();
  const drag = useRef(null);
  const path = `scenes[${index}].intensity`;

  const show = (level) => {
    element.current.style.setProperty("--level", level);
    element.current.setAttribute("aria-valuenow", level);
    element.current.querySelector(".level").textContent = level.toFixed(2);
  };
  useEffect(() => show(value), [value]);

  const down = (event) => {
    if (event.button) return;
    drag.current = { y: event.clientY, from: value, level: value, moved: false };
    element.current.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    const held = drag.current;
    if (!held) return;
    const height = 110; // px from calm to most dynamic; no layout is asked
    if (!held.moved && Math.abs(event.clientY - held.y) < 3) return;
    held.moved = true;
    held.level = clamp(held.from + (held.y - event.clientY) / height);
    show(held.level);
    look(path, held.level, index, tryOut);
  };
  const up = () => {
    const held = drag.current;
    drag.current = null;
    if (held?.moved && held.level !== held.from) studio.change({ path, value: held.level });
  };
  const key = (event) => {
    const by = { ArrowUp: 0.05, ArrowRight: 0.05, ArrowDown: -0.05, ArrowLeft: -0.05, PageUp: 0.2, PageDown: -0.2, Home: -1, End: 1 };
    if (!(event.key in by)) return;
    event.preventDefault();
    event.stopPropagation();
    const level = clamp(Number(element.current.getAttribute("aria-valuenow")) + by[event.key]);
    show(level);
    studio.type(path, level, level, 300);
  };
  return (
    <div class="stage" ref={element} role="slider" tabIndex={tab} aria-orientation="vertical" aria-label={`Intensity of ${name}`}
      aria-valuemin="0" aria-valuemax="1" aria-valuenow={value} onPointerDown={down} onPointerMove={move} onPointerUp={up}
      onPointerCancel={up} onKeyDown={key} onBlur={() => studio.flush(path)} data-auto={auto}>
      <span class="picture" style={{ backgroundImage: picture ? `url("${picture}")` : "none" }} />
      <span class="fill" />
      <span class="level" />
    </div>
  );
}

let asking = false;
let next = null;

// Asks for the plan of a value that is not written; of many only the newest.
async function look(path, value, index, tryOut) {
  next = { path, value, index, tryOut };
  if (asking) return;
  asking = true;
  while (next) {
    const { board } = studio.now();
    const one = next;
    next = null;
    try {
      const dry = await changeBoard(board.name, board.version, [{ path: one.path, value: one.value }], true);
      if (!next && dry.plan) one.tryOut(dry.plan.scenes[one.index]);
    } catch {
      next = null; // it is told when it is written
    }
    await new Promise((wake) => setTimeout(wake, 60));
  }
  asking = false;
}

// The card's right edge. Its end moves by whole steps of the grid: the seconds asked for change by as many.
function Stretch({ name, path, asked, seconds, step, tab, element }) {
  const drag = useRef(null);
  const least = 1 - Math.max(1, Math.round(seconds / step));
  const write = (steps) => steps && studio.change({ path: `${path}.seconds`, value: Math.round((asked + steps * step) * 1000) / 1000 });
  const down = (event) => {
    drag.current = { x: event.clientX, steps: 0 };
    event.currentTarget.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    const held = drag.current;
    if (!held) return;
    held.steps = Math.max(least, Math.round((event.clientX - held.x) / SECOND / step));
    element.current.style.width = `${wide(seconds + held.steps * step)}px`;
  };
  const up = () => {
    write(drag.current?.steps);
    drag.current = null;
  };
  const key = (event) => {
    const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    write(Math.max(least, by));
  };
  return (
    <div class="stretch" role="slider" tabIndex={tab} aria-orientation="horizontal" aria-label={`Length of ${name} in seconds`}
      aria-valuemin="0" aria-valuemax="3600" aria-valuenow={seconds.toFixed(2)} onPointerDown={down} onPointerMove={move}
      onPointerUp={up} onPointerCancel={up} onKeyDown={key} />
  );
}
