// plotly's bar of buttons would take what is drawn at the top, and one of them sends charts away
const CONFIG = { displayModeBar: false, responsive: true };
const PRINT = { width: 620, height: 290 };
const NARROW = 400;
const DARK_COLOURS = new Map(Object.entries(parsed("dark-colours")));
const charts = () => [...document.querySelectorAll("[data-figure]")];
let printing = false;

// Figures hold the colours of the light scheme.
function inScheme(value, key = "") {
  if (!isDark() || printing) return value;
  if (Array.isArray(value)) return value.map((item) => inScheme(item, key));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, inScheme(item, name)]));
  }
  return /color$/.test(key) ? DARK_COLOURS.get(value) ?? value : value;
}

const boxesOf = (div) => [...(div.closest(".sweep")?.querySelectorAll(".boxes input") ?? [])];
const hiddenSaes = (div) => new Set(boxesOf(div).filter((box) => !box.checked).map((box) => box.value));

// The traces of hidden SAEs go, and so does the grey band of a comparison with one of them.
function hide(div, figure) {
  const hidden = hiddenSaes(div);
  for (const trace of figure.data) if (hidden.has(trace.meta)) trace.visible = "legendonly";
  const bands = figure.layout.meta?.bands ?? [];
  bands.forEach((saes, i) => { figure.layout.shapes[i].visible = !saes.some((sae) => hidden.has(sae)); });
}

async function draw(div) {
  const figure = inScheme(parsed(div.dataset.figure));
  hide(div, figure);
  if (printing) Object.assign(figure.layout, PRINT, { width: Math.min(PRINT.width, div.offsetWidth || PRINT.width) });
  // there the boxes above say it, and a legend of many rows would leave no place for the chart
  else if (div.clientWidth < NARROW && boxesOf(div).length) figure.layout.showlegend = false;
  const first = !div.data;
  await Plotly.react(div, figure.data, figure.layout, CONFIG);
  if (first && boxesOf(div).length) followLegend(div);
}

// A legend does what the boxes do, in all charts of the section.
function followLegend(div) {
  div.on("plotly_legendclick", (event) => {
    const box = boxesOf(div).find((one) => one.value === event.data[event.curveNumber].meta);
    box.click();
    return false;
  });
  div.on("plotly_legenddoubleclick", (event) => {
    const boxes = boxesOf(div);
    const only = event.data[event.curveNumber].meta;
    const alone = boxes.every((box) => box.checked === (box.value === only));
    for (const box of boxes) box.checked = alone || box.value === only;
    redraw(div.closest(".sweep"));
    return false;
  });
}

const redraw = (within) => {
  for (const div of within.querySelectorAll("[data-figure]")) draw(div);
};

function markSection() {
  const links = [...document.querySelectorAll("nav a")];
  const top = (link) => document.querySelector(link.getAttribute("href")).getBoundingClientRect().top;
  const current = links.filter((link) => top(link) < innerHeight / 3).pop() ?? links[0];
  for (const link of links) {
    if (link === current) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

async function startCharts() {
  for (const box of document.querySelectorAll(".boxes input")) {
    box.addEventListener("change", () => redraw(box.closest(".sweep")));
  }
  for (const div of charts()) await draw(div);
  addEventListener("schemechange", () => redraw(document));
  // A chart has the size of its place on the screen; paper is narrower, and takes three to a page.
  addEventListener("beforeprint", () => { printing = true; redraw(document); });
  addEventListener("afterprint", () => { printing = false; redraw(document); });
  addEventListener("scroll", markSection, { passive: true });
  markSection();
}
