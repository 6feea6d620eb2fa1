// Numbers as text, and small charts as inline SVG: histograms and the dial

// so many digits, but every one before the point: 999.7 would be 1.00e+3
const rounded = (x, digits = 3) => (Math.abs(x) >= 10 ** digits - 0.5 ? x.toFixed(0) : x.toPrecision(digits));
const signed = (x, digits = 3) => (x === 0 ? "0" : (x > 0 ? "+" : "−") + rounded(Math.abs(x), digits));
const percent = (x) => `${x === 0 ? 0 : rounded(100 * x)}%`;
const counted = (n) => n.toLocaleString("en");

function shape(parent, tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

const picture = (width, height, className, label) =>
  shape(null, "svg", { viewBox: `0 0 ${width} ${height}`, class: className, role: "img", "aria-label": label });

// Each bar is [its bin, its height from 0 to 1, tokens in it].
function histogramOf(histogram, side) {
  const [width, height, foot, bars] = [420, 92, 18, histogram[side]];
  const step = width / histogram.n_bins;
  const tokens = bars.reduce((sum, bar) => sum + bar[2], 0);
  const most = Math.max(0, ...bars.map((bar) => bar[2]));
  const svg = picture(width, height, "histogram", `Sizes of the activations of this side on ${counted(tokens)} tokens`);
  for (const [bin, share, count] of bars) {
    const tall = Math.max(1.5, share * (height - foot - 4));
    const bar = shape(svg, "rect", { x: bin * step + 0.75, y: height - foot - tall, width: step - 1.5, height: tall });
    const [low, high] = [bin, bin + 1].map((edge) => rounded(edge * histogram.width));
    shape(bar, "title", {}, `${low} to ${high}: ${counted(count)} tokens`);
  }
  shape(svg, "text", { x: width, y: 12, "text-anchor": "end" }, most ? `tallest bar: ${counted(most)}` : "never fires");
  shape(svg, "line", { class: "axis", x1: 0, x2: width, y1: height - foot + 0.5, y2: height - foot + 0.5 });
  [["start", 0], ["middle", 0.5], ["end", 1]].forEach(([anchor, share]) => {
    const value = share * histogram.width * histogram.n_bins;
    shape(svg, "text", { x: share * width, y: height - 4, "text-anchor": anchor }, share ? rounded(value) : "0");
  });
  return svg;
}

function niceTicks(low, high, wanted) {
  const power = 10 ** Math.floor(Math.log10((high - low) / wanted));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => (high - low) / one <= wanted);
  const first = Math.ceil(low / step - 1e-9);
  const n = Math.floor(high / step + 1e-9) - first;
  return Array.from({ length: n + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

function marker(parent, className, x, y, title) {
  const point = className.includes("pair")
    ? shape(parent, "rect", { class: className, x: x - 3.5, y: y - 3.5, width: 7, height: 7 })
    : shape(parent, "circle", { class: className, cx: x, cy: y, r: 4 });
  if (title) shape(point, "title", {}, title);
}

function swatch(className) {
  const svg = shape(null, "svg", { viewBox: "0 0 38 16", "aria-hidden": "true" });
  shape(svg, "line", { class: `line ${className}`, x1: 0, x2: 38, y1: 8, y2: 8 });
  marker(svg, `point ${className}`, 19, 8);
  return svg;
}

// Curves are [class, name, dial].
function dialChart(curves) {
  const [width, height, left, right, top, bottom] = [460, 260, 62, 12, 10, 46];
  const all = curves.map((curve) => curve[2]);
  const xs = all.flatMap((dial) => dial.coefficients);
  const ys = [0, ...all.flatMap((dial) => dial.effect)];
  const spanOf = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = 0.06 * (high - low) || 1;
    return [low - margin, high + margin];
  };
  const [xSpan, ySpan] = [spanOf(xs), spanOf(ys)];
  const x = (value) => left + ((value - xSpan[0]) / (xSpan[1] - xSpan[0])) * (width - left - right);
  const y = (value) => top + ((ySpan[1] - value) / (ySpan[1] - ySpan[0])) * (height - top - bottom);
  const svg = picture(width, height, "", "Effect of the latent's direction against its coefficient");
  const text = (value) => String(value).replace("-", "−");
  for (const tick of niceTicks(...ySpan, 5)) {
    shape(svg, "line", { class: tick ? "grid" : "axis", x1: left, x2: width - right, y1: y(tick), y2: y(tick) });
    shape(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, text(tick));
  }
  for (const tick of niceTicks(...xSpan, 7)) {
    shape(svg, "line", { class: tick ? "grid" : "axis", x1: x(tick), x2: x(tick), y1: top, y2: height - bottom });
    shape(svg, "text", { x: x(tick), y: height - bottom + 18, "text-anchor": "middle" }, text(tick));
  }
  shape(svg, "text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "c");
  const middle = (top + height - bottom) / 2;
  shape(svg, "text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, "effect (nats)");
  for (const [className, name, dial] of [...curves].reverse()) {
    const points = dial.coefficients.map((c, i) => `${x(c).toFixed(1)},${y(dial.effect[i]).toFixed(1)}`);
    shape(svg, "polyline", { class: `line ${className}`, points: points.join(" ") });
    dial.coefficients.forEach((c, i) => {
      const title = `${name}: c ${signed(c)}, effect ${signed(dial.effect[i])}`;
      marker(svg, `point ${className}`, x(c), y(dial.effect[i]), title);
    });
  }
  return svg;
}
