"use strict";
const byId = (id) => document.getElementById(id);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Theme: that of the system, until the reader asks for the other one.

const system = matchMedia("(prefers-color-scheme: dark)");
byId("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
  const other = dark === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = document.documentElement.style.colorScheme = other;
  drawCharts();
});
system.addEventListener("change", () => drawCharts());

// Charts

const CONFIG = { displayModeBar: false, responsive: true };

function drawCharts() {
  const { color, fontFamily } = getComputedStyle(document.body);
  return Promise.all(all(".plot").map((plot) => {
    plot.figure ??= JSON.parse(plot.querySelector("script").textContent);
    const { layout } = plot.figure;
    const boxes = all("fieldset input", plot.closest("section"));
    const hidden = new Set(boxes.filter((box) => !box.checked).map((box) => box.value));
    const data = plot.figure.data.map((trace) => ({ ...trace, visible: !hidden.has(trace.meta) }));
    return Plotly.react(plot, data, { ...layout, font: { color, family: fontFamily, size: 13 } }, CONFIG);
  }));
}

for (const box of all("fieldset input")) box.addEventListener("change", drawCharts);

// Latents: every one is in the page, and the address says which is shown.

function startLatents() {
  const [sae, order, find, found] = ["sae", "order", "find", "found"].map(byId);
  const groups = all(".sae");
  const items = () => all("li[data-latent]", groups[sae.selectedIndex]);
  const listed = () => items().filter((item) => !item.hidden);
  const articleOf = (item) => byId(item.querySelector("a").getAttribute("href").slice(1));
  let shown;

  const matches = (token) => find.value.trim() && token.textContent.toLowerCase().includes(find.value.toLowerCase());

  function show(item) {
    shown = item;
    for (const article of all("article")) article.hidden = !item || article !== articleOf(item);
    for (const link of all(".list a")) link.removeAttribute("aria-current");
    const at = listed().indexOf(item);
    byId("previous").disabled = at <= 0;
    byId("next").disabled = at === listed().length - 1;
    if (!item) return;
    item.querySelector("a").setAttribute("aria-current", "true");
    for (const token of all(".token", articleOf(item))) token.classList.toggle("match", Boolean(matches(token)));
  }

  // Lists the latents of the SAE that the search leaves, in order, and shows the one shown before or the first.
  function list() {
    const wanted = find.value.trim();
    for (const group of groups) group.hidden = group !== groups[sae.selectedIndex];
    const direction = order.value === "latent" ? 1 : -1;
    const sorted = items().sort((a, b) => direction * (a.dataset[order.value] - b.dataset[order.value]));
    for (const item of sorted) {
      item.hidden = wanted !== "" && item.dataset.latent !== wanted && !all(".token", articleOf(item)).some(matches);
      item.parentElement.append(item);
    }
    const left = listed();
    found.textContent = wanted ? `${left.length} of ${sorted.length} latents have “${find.value}” in an active or promoted token, or as their number.` : `${sorted.length} latents`;
    show(left.includes(shown) ? shown : left[0]);
  }

  function go(item) {
    if (!item) return;
    history.replaceState(null, "", item.querySelector("a").getAttribute("href"));
    show(item);
    item.scrollIntoView({ block: "nearest" });
  }

  const step = (by) => go(listed()[listed().indexOf(shown) + by]);

  function followAddress() {
    const link = all(".list a").find((one) => one.getAttribute("href") === location.hash);
    if (!link) return;
    sae.selectedIndex = groups.indexOf(link.closest(".sae"));
    shown = link.closest("li");
    if (shown.hidden) find.value = "";
    list();
  }

  sae.addEventListener("change", () => { list(); go(shown); });
  order.addEventListener("change", () => { shown = undefined; list(); go(shown); });
  find.addEventListener("input", list);
  byId("values").addEventListener("change", (event) => byId("latents").classList.toggle("with-values", event.target.checked));
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("latents").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || event.target.closest("select, input") || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    step(by);
  });
  addEventListener("hashchange", followAddress);
  list();
  followAddress();
}

if (byId("latents")) startLatents();
drawCharts().then(() => { document.documentElement.dataset.ready = "yes"; });
