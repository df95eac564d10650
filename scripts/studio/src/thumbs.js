// Pictures of each scene out of the film, side by side as on a strip; one at a time, so that the page stays fluid.

import { film } from "./server.js";

const HEIGHT = 118; // px
const MOST = 24; // pictures of a scene

export function thumbsOf(name, report, width, show) {
  const video = document.createElement("video");
  const canvas = document.createElement("canvas");
  const rate = report.totals.frames / report.totals.film_seconds;
  const made = [];
  let left = false;
  const seek = (at) =>
    new Promise((done, failed) => {
      video.onseeked = done;
      video.onerror = failed;
      video.currentTime = at;
    });
  const draw = async () => {
    const each = Math.round((video.videoWidth * HEIGHT) / video.videoHeight);
    const pen = canvas.getContext("2d");
    for (const scene of report.scenes) {
      const [first, end] = scene.frames;
      const count = Math.min(MOST, Math.max(1, Math.ceil(width((end - first) / rate) / each)));
      canvas.height = HEIGHT;
      canvas.width = each * count;
      for (let nth = 0; nth < count; nth += 1) {
        if (left) return;
        await seek((first + ((nth + 0.5) / count) * (end - first)) / rate);
        pen.drawImage(video, nth * each, 0, each, HEIGHT);
      }
      const picture = await new Promise((done) => canvas.toBlob(done, "image/webp", 0.8));
      if (!picture || left) return;
      made.push(URL.createObjectURL(picture));
      show({ [scene.scene]: made.at(-1) });
    }
  };
  video.muted = true;
  video.preload = "auto";
  video.onloadeddata = () => draw().catch(() => {});
  video.src = `${film(name)}/video?${report.film}`; // of its own for each film: browsers keep media by URL
  return () => {
    left = true;
    video.removeAttribute("src");
    made.forEach(URL.revokeObjectURL);
  };
}
