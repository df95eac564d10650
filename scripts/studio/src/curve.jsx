// s(sigma): the scales of a scene's steps, as the plan has them.

const RANGE = (scales) => {
  const values = Object.values(scales).flat();
  return [Math.min(0, ...values), Math.max(...values, 0.001)];
};

// Which scale tells the most: the one that changes.
export function chosen(scales) {
  const names = Object.keys(scales);
  return names.find((name) => new Set(scales[name]).size > 1) ?? names[0];
}

const points = (values, width, height, low, high) =>
  values.map((value, nth) => {
    const x = values.length > 1 ? (nth / (values.length - 1)) * width : 0;
    const y = height - 1 - ((value - low) / (high - low)) * (height - 2);
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  });

export function curvePath({ scales }, width, height) {
  const values = scales[chosen(scales)];
  const [low, high] = RANGE({ values });
  return `M${points(values.length > 1 ? values : [...values, ...values], width, height, low, high).join("L")}`;
}

export function Curve({ planned }) {
  const names = Object.keys(planned.scales);
  const [low, high] = RANGE(planned.scales);
  const sigmas = planned.sigmas;
  return (
    <figure id="curve">
      <svg viewBox="0 0 300 96" preserveAspectRatio="none" role="img" aria-label={`Scales over the noise of ${planned.scene}: ${planned.relaxed}`}>
        {[0.25, 0.5, 0.75].map((part) => (
          <line key={part} x1="0" x2="300" y1={96 * part} y2={96 * part} class="grid" />
        ))}
        {names.map((name, nth) => (
          <polyline key={name} data-nth={nth} points={points(planned.scales[name], 300, 96, low, high).join(" ")} />
        ))}
      </svg>
      <figcaption>
        {names.map((name, nth) => (
          <span key={name} data-nth={nth}>
            {name} {planned.scales[name][0]}
            {new Set(planned.scales[name]).size > 1 ? `→${planned.scales[name].at(-1)}` : ""}
          </span>
        ))}
        <span class="axis">
          s(σ), σ {sigmas[0]} → {sigmas.at(-1)}, {sigmas.length} steps
        </span>
      </figcaption>
    </figure>
  );
}
