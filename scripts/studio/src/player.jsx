// The film: while it grows as much as there is, then whole; and what renders it.

import { useEffect, useRef } from "preact/hooks";
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
  const video = useRef();
  const there = Boolean(board.film?.files.video);

  useEffect(() => {
    if (!there) return;
    const playing = !video.current.paused;
    const at = video.current.currentTime;
    video.current.src = `${film(board.name)}/video?${take}`;
    video.current.onloadedmetadata = () => {
      video.current.currentTime = Math.min(at, video.current.duration || 0);
      if (playing) video.current.play().catch(() => {});
    };
  }, [board.name, there, take]);

  useEffect(() => {
    const scene = studio.scenesOf(board)[selected]?.id;
    const shown = report?.scenes.find((one) => one.scene === scene);
    if (shown && video.current?.readyState && video.current.paused) {
      video.current.currentTime = (shown.frames[0] / report.totals.frames) * report.totals.film_seconds + 0.01;
    }
  }, [selected, report]);

  return (
    <section id="player" aria-label="Film">
      <div class="screen">
        {there ? (
          <video ref={video} controls playsInline loop aria-label="The film, as much as there is" />
        ) : (
          <p class="quiet">Nothing is rendered yet.</p>
        )}
      </div>
      <Making />
    </section>
  );
}

function Making() {
  const board = useStudio((state) => state.board);
  const left = useStudio((state) => state.left);
  const { film: made, plan, busy } = board;
  if (busy) return <Working />;
  const whole = made?.state === "done" && left && left.kept === left.sections;
  const begun = left && left.kept > 0 && !whole;
  return (
    <div id="making">
      {plan && !whole && (left || made?.state !== "done") && (
        <button type="button" class="main" id="render" onClick={() => studio.render()}>
          {begun ? "Resume" : "Render"}
        </button>
      )}
      <div class="facts">
        {whole && <p class="good">The film is as the storyboard says.</p>}
        {!plan && <p class="mistake">Mend the mistakes below; then it can be rendered.</p>}
        {begun && (
          <p>
            {left.kept} of {left.sections} sections are there and are kept.
          </p>
        )}
        {made?.state === "failed" && <p class="mistake">It failed: {made.why}</p>}
        {plan && (
          <p class="quiet">
            {plan.seconds.toFixed(2)} s, {plan.sections} sections, {plan.size.join("×")}, {plan.model}
            {left && !whole && `; ${span(left.passes, String)} passes`}
            {left?.seconds && !whole && `; by estimate ${span(left.seconds, lasting)} on an H200`}
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

function Working() {
  const board = useStudio((state) => state.board);
  const progress = useStudio((state) => state.progress);
  const steps = board.plan?.scenes[0].sigmas.length ?? 25;
  const total = board.film?.sections || 1;
  const done = studio.doneOf(board.film);
  const share = Math.min(1, (done + (progress?.step ?? 0) / steps) / total);
  const spent = progress ? (performance.now() - progress.begun) / 1000 : 0;
  const first = (progress?.first ?? done) / total;
  const takes = board.busy !== board.name;
  const rest = share - first > 0.03 ? (spent / (share - first)) * (1 - share) : null;
  return (
    <div id="making">
      <button type="button" id="cancel" onClick={studio.cancel}>
        Cancel
      </button>
      <div class="facts">
        <progress aria-label="Rendered" max="1" value={takes ? undefined : share} />
        <p class="quiet" id="progress">
          {takes && "takes: "}
          {progress && progress.section >= 0
            ? `section ${progress.section + 1}, step ${progress.step}`
            : "beginning"}
          {!takes && `; ${done} of ${total} sections are done`}
          {!takes && rest !== null && `; about ${lasting(rest)} left`}
        </p>
      </div>
    </div>
  );
}
