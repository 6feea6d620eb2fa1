"use strict";
// Every text goes into the page as textContent: no token is ever read as HTML.
(() => {
  // plotly's bar of buttons would take what is drawn at the top, and one of them sends charts away
  const CONFIG = { displayModeBar: false, responsive: true };
  const PRINT = { width: 620, height: 290 };
  const PLUS = "0, 114, 178";
  const MINUS = "213, 94, 0";
  const byId = (id) => document.getElementById(id);
  const parsed = (id) => JSON.parse(byId(id).textContent);
  const plots = () => [...document.querySelectorAll(".js-plotly-plot")];

  function element(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Charts

  async function drawCharts() {
    for (const div of document.querySelectorAll("[data-figure]")) {
      const figure = parsed(div.dataset.figure);
      await Plotly.newPlot(div, figure.data, figure.layout, CONFIG);
    }
  }

  function toggle(event) {
    const sae = event.target.value;
    const visible = event.target.checked ? true : "legendonly";
    for (const div of event.target.closest(".sweep").querySelectorAll("[data-figure]")) {
      const which = div.data.flatMap((trace, i) => (trace.meta === sae ? [i] : []));
      if (which.length) Plotly.restyle(div, { visible }, which);
    }
  }

  // A chart has the size of its place on the screen; paper is narrower, and takes three to a page.
  addEventListener("beforeprint", () => {
    for (const div of plots()) {
      const width = Math.min(PRINT.width, div.offsetWidth || PRINT.width);
      Plotly.relayout(div, { width, height: PRINT.height });
    }
  });
  addEventListener("afterprint", () => {
    for (const div of plots()) Plotly.relayout(div, { width: null, height: null, autosize: true });
  });

  // Browser of latents

  // so many digits, but every one before the point
  const rounded = (x, digits = 3) =>
    Math.abs(x) >= 10 ** digits ? x.toFixed(0) : x.toPrecision(digits);
  const signed = (x, digits = 3) =>
    x === 0 ? "0" : (x > 0 ? "+" : "−") + rounded(Math.abs(x), digits);
  const percent = (x) => `${x === 0 ? 0 : rounded(100 * x)}%`;
  const visibleText = (token) =>
    token === "" ? "∅" : token.replace(/\r\n|\r|\n|\u2028|\u2029/g, "⏎").replace(/\t/g, "⇥");

  function tokenElement(token, value, strongest, isPeak) {
    const made = element("span", isPeak ? "token peak" : "token", visibleText(token));
    made.title = signed(value);
    if (value !== 0) {
      const alpha = 0.08 + 0.57 * Math.min(1, Math.abs(value) / strongest);
      made.style.backgroundColor = `rgba(${value > 0 ? PLUS : MINUS}, ${alpha.toFixed(3)})`;
      made.dataset.value = signed(value, 2);
    }
    return made;
  }

  function contextElement(context, strongest) {
    const item = element("li");
    item.append(element("span", "value", signed(context.activations[context.peak])));
    const words = element("span", "context");
    words.title = `prompt ${context.prompt}, position ${context.position}`;
    context.tokens.forEach((token, i) => {
      words.append(tokenElement(token, context.activations[i], strongest, i === context.peak));
    });
    item.append(words);
    return item;
  }

  function fillSide(page, side, strongest) {
    const list = byId(`side-${side}-contexts`);
    const contexts = page[`examples_${side}`];
    list.replaceChildren(...contexts.map((context) => contextElement(context, strongest)));
    if (!contexts.length) {
      list.append(element("li", "none", "This side fired in none of the prompts that were searched."));
    }
    const gain = page[`gain_${side}`];
    const numbers = [
      ["fires on", `${percent(page[`firing_rate_${side}`])} of tokens`],
      ["energy", rounded(page[`energy_${side}`])],
      ["gain", gain === null ? "never fires" : rounded(gain)],
    ];
    byId(`side-${side}-numbers`).replaceChildren(
      ...numbers.map(([name, value]) => {
        const pair = element("div");
        pair.append(element("dt", "", name), element("dd", "", value));
        return pair;
      }),
    );
  }

  function dialVerdict(name, dial) {
    const symmetry = dial.symmetry === null ? "no effect" : `symmetry ${dial.symmetry.toPrecision(2)}`;
    const item = element(
      "li", "",
      `${name}: ${dial.monotone ? "monotone" : "not monotone"}, ` +
      `${dial.sign_changing ? "sign-changing" : "not sign-changing"}, ${symmetry}` +
      `; cosine of its two directions ${signed(dial.direction_cosine, 2)}. On logit(`,
    );
    const [a, b] = dial.logit_tokens.map((token) => element("span", "quoted", visibleText(token)));
    item.append(a, ") − logit(", b, `), ${signed(dial.baseline)} with nothing added.`);
    return item;
  }

  function dialTrace(name, dial, line, symbol) {
    return {
      type: "scatter", mode: "lines+markers", name, x: dial.coefficients, y: dial.effect, line,
      marker: { symbol, size: 7 }, hovertemplate: `${name}<br>c %{x:.3g}<br>effect %{y:+.4f}<extra></extra>`,
    };
  }

  function fillDial(entry, page) {
    byId("dial").hidden = page.dial === null;
    if (page.dial === null) return;
    const what = byId("dial-what");
    what.replaceChildren(
      "c times the latent's unit direction is added to the stream at every position. Effect: the change of " +
      "the difference of two logits at the last position, mean over prompts, in nats; they are of the two tokens that " +
      "the unembedding says the direction raises and lowers most. A plain pair writes the one latent for c > 0 and the " +
      "other for c < 0, and has two tokens of its own.",
    );
    const traces = [dialTrace(`latent ${page.latent}`, page.dial, { color: "#332288", width: 2 }, "circle")];
    const verdicts = [dialVerdict(`Latent ${page.latent}`, page.dial)];
    if (page.pair_dial !== null) {
      const [a, b] = page.pair_dial.latents;
      const line = { color: "#777777", width: 2, dash: "dash" };
      traces.push(dialTrace(`plain latents ${a} (+), ${b} (−)`, page.pair_dial, line, "square"));
      const name = `Latents ${a} (+) and ${b} (−) of ${entry.plain_run ?? "the plain SAE"}, nearest to its two ends`;
      verdicts.push(dialVerdict(name, page.pair_dial));
    }
    verdicts.push(
      element("li", "note", "Symmetry is the share of the effect that is odd in c: 1 is mirrored, 0 the same both ways."),
    );
    byId("dial-verdicts").replaceChildren(...verdicts);
    const axis = { gridcolor: "#e4e4e4", zerolinecolor: "#888", automargin: true };
    Plotly.react("dial-plot", traces, {
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#222" },
      margin: { l: 60, r: 10, t: 10, b: 45 },
      xaxis: { ...axis, title: { text: "c", standoff: 6 } },
      yaxis: { ...axis, title: { text: "effect (nats)" } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
      showlegend: true,
    }, CONFIG);
  }

  function startBrowser() {
    const entries = parsed("latents-data");
    const [saes, latents, order] = ["choose-sae", "choose-latent", "choose-order"].map(byId);
    const [previous, next] = ["previous", "next"].map(byId);
    let pages = [];

    function show() {
      const i = latents.selectedIndex;
      const page = pages[i];
      const all = [...page.examples_pos, ...page.examples_neg].flatMap((c) => c.activations);
      const strongest = Math.max(1e-12, ...all.map(Math.abs));
      byId("which").textContent =
        `Latent ${page.latent}: ${i + 1} of ${pages.length} shown; the rarer side makes up ` +
        `${percent(page.min_share)} of its firings`;
      fillSide(page, "pos", strongest);
      fillSide(page, "neg", strongest);
      fillDial(entries[saes.selectedIndex], page);
      previous.disabled = i === 0;
      next.disabled = i === pages.length - 1;
    }

    function list() {
      pages = [...entries[saes.selectedIndex].pages];
      if (order.value === "min_share") pages.sort((a, b) => b.min_share - a.min_share);
      latents.replaceChildren(
        ...pages.map((page) => element("option", "", `${page.latent} (min share ${page.min_share.toFixed(2)})`)),
      );
      show();
    }

    function step(by) {
      const to = latents.selectedIndex + by;
      if (to < 0 || to >= pages.length) return;
      latents.selectedIndex = to;
      show();
      // a disabled button would lose the focus, and the arrow keys with it
      if (document.activeElement?.disabled || document.activeElement === document.body) byId("browser").focus();
    }

    saes.addEventListener("change", list);
    order.addEventListener("change", list);
    latents.addEventListener("change", show);
    previous.addEventListener("click", () => step(-1));
    next.addEventListener("click", () => step(1));
    byId("show-values").addEventListener("change", (event) => {
      byId("browser").classList.toggle("values", event.target.checked);
    });
    byId("browser").addEventListener("keydown", (event) => {
      if (event.target.closest("select, input") || event.altKey || event.ctrlKey || event.metaKey) return;
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      step(by);
    });
    list();
  }

  for (const box of document.querySelectorAll(".boxes input")) box.addEventListener("change", toggle);
  if (byId("latents-data")) startBrowser();
  drawCharts().then(() => { document.documentElement.dataset.ready = "yes"; });
})();
