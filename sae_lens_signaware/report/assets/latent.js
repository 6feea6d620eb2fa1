// One latent: both sides with their numbers, histogram, top logits and contexts; its dial

const visibleText = (token) =>
  token === "" ? "∅" : token.replace(/\r\n|\r|\n|\u2028|\u2029/g, "⏎").replace(/\t/g, "⇥");

// How a token is looked at: which texts are special, and what the filter asks for.
function tokenElement(token, look) {
  const made = element("span", "token", visibleText(token));
  if (look.special.has(token)) {
    made.classList.add("special");
    made.title = "special token";
  }
  if (look.matches(token)) made.classList.add("match");
  return made;
}

function contextElement(context, strongest, look) {
  const item = element("li");
  item.append(element("span", "value", signed(context.activations[context.peak])));
  const words = element("span", "context");
  words.title = `prompt ${context.prompt}, position ${context.position}`;
  context.tokens.forEach((token, i) => {
    const value = context.activations[i];
    const made = tokenElement(token, value === 0 ? { ...look, matches: () => false } : look);
    made.classList.toggle("peak", i === context.peak);
    made.title = [signed(value), made.title].filter(Boolean).join(", ");
    if (value !== 0) {
      made.classList.add(value > 0 ? "on-plus" : "on-minus");
      made.style.setProperty("--strength", (0.08 + 0.57 * Math.min(1, Math.abs(value) / strongest)).toFixed(3));
      made.dataset.value = signed(value, 2);
    }
    words.append(made);
  });
  item.append(words);
  return item;
}

function fillNumbers(page, side) {
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

function logitElement([token, value], look) {
  const item = element("li");
  item.title = `${signed(value)} to its logit for one unit of activation`;
  item.append(tokenElement(token, look), element("span", "value", signed(value, 2)));
  return item;
}

function fillSide(page, side, strongest, look) {
  fillNumbers(page, side);
  byId(`side-${side}-histogram`).hidden = page.histogram === null;
  if (page.histogram) {
    byId(`side-${side}-bars`).replaceChildren(histogramOf(page.histogram, side));
  }
  byId(`side-${side}-logits`).hidden = page.top_logits === null;
  if (page.top_logits) {
    const items = page.top_logits[side].map((pair) => logitElement(pair, look));
    byId(`side-${side}-promoted`).replaceChildren(...items);
  }
  const list = byId(`side-${side}-contexts`);
  const contexts = page[`examples_${side}`];
  list.replaceChildren(...contexts.map((context) => contextElement(context, strongest, look)));
  if (!contexts.length) {
    list.append(element("li", "none", "This side fired in none of the prompts that were searched."));
  }
}

function dialVerdict(className, name, dial) {
  const symmetry = dial.symmetry === null ? "no effect" : `symmetry ${dial.symmetry.toPrecision(2)}`;
  const words =
    `${name}: ${dial.monotone ? "monotone" : "not monotone"}, ` +
    `${dial.sign_changing ? "sign-changing" : "not sign-changing"}, ${symmetry}; ` +
    `cosine of its two directions ${signed(dial.direction_cosine, 2)}. On logit(`;
  const item = element("li");
  const [a, b] = dial.logit_tokens.map((token) => element("span", "quoted", visibleText(token)));
  item.append(swatch(className), words, a, ") − logit(", b, `), ${signed(dial.baseline)} with nothing added.`);
  return item;
}

function fillDial(entry, page) {
  byId("dial").hidden = page.dial === null;
  if (page.dial === null) return;
  const curves = [["own", `Latent ${page.latent}`, page.dial]];
  let name = "";
  if (page.pair_dial !== null) {
    const [a, b] = page.pair_dial.latents;
    curves.push(["pair", `plain latents ${a} (+), ${b} (−)`, page.pair_dial]);
    name = `Latents ${a} (+) and ${b} (−) of ${entry.plain_run ?? "the plain SAE"}, nearest to its two ends`;
  }
  const verdicts = curves.map(([className, own, dial]) => dialVerdict(className, className === "pair" ? name : own, dial));
  verdicts.push(
    element("li", "note", "Symmetry is the share of the effect that is odd in c: 1 is mirrored, 0 the same both ways."),
  );
  byId("dial-verdicts").replaceChildren(...verdicts);
  byId("dial-plot").replaceChildren(dialChart(curves));
}

function showLatent(entry, page, look) {
  const all = [...page.examples_pos, ...page.examples_neg].flatMap((context) => context.activations);
  const strongest = Math.max(1e-12, ...all.map(Math.abs));
  byId("which").textContent = `Latent ${page.latent}`;
  for (const side of ["pos", "neg"]) fillSide(page, side, strongest, look);
  fillDial(entry, page);
}
