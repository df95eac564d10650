// The film: while it grows as much as there is, then whole; and what renders it.

import { useEffect, useRef, useState } from "preact/hooks";
import { film } from "./server.js";
import * as studio from "./state.js";

const { useStudio } = studio;

const span = ([least, most], unit) => (least === most ? unit(least) : `${unit(least)} to ${unit(most)}`);
const lasting = (seconds) =>
  seconds < 1 ? "under a second" : seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;

export function Player() {
  const board = useStudio((state) => state.board);
  const take = useStudio((state) => state.take);
  const selected = useStudio((state) => state.selected);
  const report = useStudio((state) => state.report);
  const [chosen, choose] = useState(null);
  const video = useRef();
  const names = [board.film, board.draft].filter((film) => film?.files.video).map((film) => film.name);
  const working = names.find((name) => name === board.busy);
  const shown = working ?? (names.includes(chosen) ? chosen : names[0]);

  useEffect(() => {
    if (!shown) return;
    const playing = !video.current.paused;
    const at = video.current.currentTime;
    video.current.src = `${film(shown)}/video?${take}`;
    video.current.onloadedmetadata = () => {
      video.current.currentTime = Math.min(at, video.current.duration || 0);
      if (playing) video.current.play().catch(() => {});
    };
  }, [shown, take]);

  useEffect(() => {
    const scene = studio.scenesOf(board)[selected]?.id;
    const planned = report?.scenes.find((one) => one.scene === scene);
    if (planned && video.current?.readyState && video.current.paused) {
      video.current.currentTime = (planned.frames[0] / report.totals.frames) * report.totals.film_seconds + 0.01;
    }
  }, [selected, report]);

  return (
    <section id="player" aria-label="Film">
      <div class="screen">
        {shown ? (
          <video ref={video} controls playsInline loop aria-label="The film, as much as there is" />
        ) : (
          <p class="quiet">Nothing is rendered yet.</p>
        )}
        {names.length > 1 && !working && (
          <div class="which">
            {names.map((name) => (
              <button type="button" key={name} aria-pressed={name === shown} class="view" onClick={() => choose(name)}>
                {name === board.name ? "Film" : "Draft"}
              </button>
            ))}
          </div>
        )}
      </div>
      {board.busy ? <Working /> : <Making />}
    </section>
  );
}

function Making() {
  const board = useStudio((state) => state.board);
  const left = useStudio((state) => state.left);
  const { film: made, draft, plan } = board;
  const whole = made?.state === "done" && left?.whole;
  const begun = left?.kept > 0 && !whole;
  const start = board.fields?.start_from;
  return (
    <div id="making">
      {plan && !whole && (left || made?.state !== "done") && (
        <>
          <button type="button" class="main" id="render" onClick={() => studio.render()}>
            {!begun ? "Render" : left.kept < left.sections ? "Resume" : "Make the film"}
          </button>
          {!start && (
            <button type="button" id="draft" onClick={studio.draft} title="half the size, a third of the steps">
              Draft
            </button>
          )}
        </>
      )}
      {draft?.state === "done" && !start && (
        <button type="button" id="accept" onClick={() => studio.change({ path: "start_from", value: { folder: `out/${draft.name}` } })}>
          Accept the draft
        </button>
      )}
      {start && (
        <button type="button" id="reject" onClick={() => studio.change({ path: "start_from", value: null })}>
          Without the draft
        </button>
      )}
      <div class="facts">
        {whole && <p class="good">The film is as the storyboard says.</p>}
        {start && !whole && <p>It goes on from the draft.</p>}
        {!plan && <p class="mistake">Mend the mistakes below; then it can be rendered.</p>}
        {left?.wrong && <p class="mistake">{left.wrong}</p>}
        {begun && (
          <p>
            {left.kept} of {left.sections} sections are there and are kept.
          </p>
        )}
        {made?.state === "failed" && <p class="mistake">It failed: {made.why}</p>}
        {plan && (
          <p class="quiet">
            {plan.seconds.toFixed(2)} s, {plan.sections} sections, {plan.size.join("×")}, {plan.model}
            {left?.passes?.[1] > 0 && `; ${span(left.passes, String)} passes`}
            {left?.seconds?.[1] > 0 && `; by estimate ${span(left.seconds, lasting)} on an H200`}
          </p>
        )}
      </div>
      {whole && (
        <a class="button" id="download" href={`${film(board.name)}/video`} download={`${board.name}.mp4`}>
          Download
        </a>
      )}
    </div>
  );
}

const WHAT = { film: "", draft: "draft: ", takes: "takes: " };

function Working() {
  const board = useStudio((state) => state.board);
  const progress = useStudio((state) => state.progress);
  const drawn = useStudio((state) => state.drawn);
  const kind = board.busy === board.name ? "film" : board.busy === studio.draftOf(board.name) ? "draft" : "takes";
  const made = kind === "takes" ? null : board[kind];
  const picture = (made ?? board.film)?.files["preview.png"];
  const steps = (board.plan?.scenes[0].sigmas.length ?? 25) / (kind === "draft" ? 3 : 1);
  const total = made?.sections || 1;
  const done = studio.doneOf(made);
  const share = Math.min(1, (done + Math.min(1, (progress?.step ?? 0) / steps)) / total);
  const spent = progress ? (performance.now() - progress.begun) / 1000 : 0;
  const first = (progress?.first ?? done) / total;
  const rest = share - first > 0.03 ? (spent / (share - first)) * (1 - share) : null;
  return (
    <>
      {picture && (
        <img id="preview" src={`${picture}?${drawn}`} alt="what is sampled now, in rough colours" />
      )}
      <div id="making">
        <button type="button" id="cancel" onClick={studio.cancel}>
          Cancel
        </button>
        <div class="facts">
          <progress aria-label="Rendered" max="1" value={kind === "takes" ? undefined : share} />
          <p class="quiet" id="progress">
            {WHAT[kind]}
            {progress?.section >= 0 ? `section ${progress.section + 1}, step ${progress.step}` : "beginning"}
            {kind !== "takes" && `; ${done} of ${total} sections are done`}
            {kind !== "takes" && rest !== null && `; about ${lasting(rest)} left`}
          </p>
        </div>
      </div>
    </>
  );
}
