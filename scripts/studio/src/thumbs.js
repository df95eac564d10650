// A picture of the middle of each scene, out of the film; one at a time, so that the page stays fluid.

import { film } from "./server.js";

const HEIGHT = 112; // px

export function thumbsOf(name, report, show) {
  const video = document.createElement("video");
  const canvas = document.createElement("canvas");
  const rate = report.totals.frames / report.totals.film_seconds;
  let left = false;
  const seek = (at) =>
    new Promise((done, failed) => {
      video.onseeked = done;
      video.onerror = failed;
      video.currentTime = at;
    });
  const draw = async () => {
    const scale = HEIGHT / video.videoHeight;
    canvas.height = HEIGHT;
    canvas.width = Math.round(video.videoWidth * scale);
    for (const scene of report.scenes) {
      if (left) return;
      await seek((scene.frames[0] + scene.frames[1]) / 2 / rate);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const picture = await new Promise((done) => canvas.toBlob(done, "image/webp", 0.8));
      if (picture && !left) show({ [scene.scene]: URL.createObjectURL(picture) });
    }
  };
  video.muted = true;
  video.preload = "auto";
  video.onloadeddata = () => draw().catch(() => {});
  video.src = `${film(name)}/video`;
  return () => {
    left = true;
    video.removeAttribute("src");
  };
}
