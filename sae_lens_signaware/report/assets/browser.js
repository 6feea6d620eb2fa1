// Browser of latents: which latent is shown. One set of controls serves all SAEs.

const peakOf = (contexts) => (contexts.length ? visibleText(contexts[0].tokens[contexts[0].peak]).trim() : "–");

// All tokens by which the filter finds a latent: active ones in its contexts, and its top logits.
function tokensOf(page) {
  const contexts = [...page.examples_pos, ...page.examples_neg];
  const active = contexts.flatMap((context) => context.tokens.filter((_, i) => context.activations[i] !== 0));
  const logits = page.top_logits ? [...page.top_logits.pos, ...page.top_logits.neg].map((pair) => pair[0]) : [];
  return [...new Set([...active, ...logits])];
}

class LatentBrowser {
  constructor(entries) {
    this.entries = entries;
    [this.saes, this.latents, this.order, this.jump, this.filter] =
      ["choose-sae", "choose-latent", "choose-order", "jump", "filter"].map(byId);
    this.pages = [];
  }

  get entry() { return this.entries[this.saes.selectedIndex]; }
  get page() { return this.pages[this.latents.selectedIndex]; }

  matches(token) {
    const wanted = this.filter.value.toLowerCase();
    return wanted.trim() !== "" && (visibleText(token).toLowerCase().includes(wanted) || token.toLowerCase().includes(wanted));
  }

  say(words) { byId("found").textContent = words; }

  // Lists the latents that the filter leaves, and shows the one of that id, or the first.
  list(id) {
    const all = this.entry.pages;
    const filtered = this.filter.value.trim() !== "";
    this.pages = all.filter((page) => !filtered || tokensOf(page).some((token) => this.matches(token)));
    if (this.order.value === "min_share") this.pages.sort((a, b) => b.min_share - a.min_share);
    this.latents.replaceChildren(
      ...this.pages.map((page) => element(
        "option", "", `${page.latent} · ${peakOf(page.examples_pos)} / ${peakOf(page.examples_neg)}`,
      )),
    );
    this.latents.selectedIndex = this.pages.length ? Math.max(0, this.pages.findIndex((page) => page.latent === id)) : -1;
    this.say(filtered ? `${this.pages.length} of ${all.length} latents have “${this.filter.value}” in an active token or a top logit.` : "");
    this.show();
  }

  show() {
    const i = this.latents.selectedIndex;
    for (const name of ["which", "sides"]) byId(name).hidden = !this.page;
    this.latents.disabled = !this.page;
    byId("previous").disabled = i <= 0;
    byId("next").disabled = i === this.pages.length - 1;
    if (!this.page) {
      byId("dial").hidden = true;
      return;
    }
    const look = { special: new Set(this.entry.special_tokens), matches: (token) => this.matches(token) };
    showLatent(this.entry, this.page, look);
    byId("which").textContent += `: ${i + 1} of ${this.pages.length}; the rarer side makes up ${percent(this.page.min_share)} of its firings`;
  }

  step(by) {
    const to = this.latents.selectedIndex + by;
    if (to < 0 || to >= this.pages.length) return;
    this.latents.selectedIndex = to;
    this.chosen();
    // a disabled button would lose the focus, and the arrow keys with it
    if (document.activeElement?.disabled || document.activeElement === document.body) byId("browser").focus();
  }

  // After a choice of the reader's, the address leads to it.
  chosen() {
    this.show();
    if (!this.page) return;
    try {
      history.replaceState(null, "", `#sae=${this.saes.selectedIndex}&latent=${this.page.latent}`);
    } catch {} // a page in a sandbox has no address of its own
  }

  // Shows the latent of that id, whatever the filter; says so where it is not in the file.
  jumpTo(id) {
    const { pages, d_sae } = this.entry;
    if (!pages.some((page) => page.latent === id)) {
      this.say(`Latent ${id} is not here: this page has ${pages.length} of the ${counted(d_sae)} latents of this SAE.`);
      return;
    }
    if (!this.pages.some((page) => page.latent === id)) this.filter.value = "";
    this.list(id);
    this.chosen();
  }

  followAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    if (!asked.has("latent")) return;
    const sae = Number(asked.get("sae") ?? 0);
    if (this.entries[sae]) this.saes.selectedIndex = sae;
    this.list();
    this.jumpTo(Number(asked.get("latent")));
    byId("browser").scrollIntoView();
  }

  start() {
    const relist = () => { this.list(this.page?.latent); this.chosen(); };
    this.saes.addEventListener("change", () => { this.list(); this.chosen(); });
    this.order.addEventListener("change", () => { this.list(); this.chosen(); });
    this.filter.addEventListener("input", relist);
    this.latents.addEventListener("change", () => this.chosen());
    this.jump.addEventListener("change", () => { if (this.jump.value !== "") this.jumpTo(Number(this.jump.value)); });
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("next").addEventListener("click", () => this.step(1));
    byId("show-values").addEventListener("change", (event) => {
      byId("browser").classList.toggle("values", event.target.checked);
    });
    byId("browser").addEventListener("keydown", (event) => {
      if (event.target.closest("select, input") || event.altKey || event.ctrlKey || event.metaKey) return;
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.step(by);
    });
    addEventListener("hashchange", () => this.followAddress());
    this.list();
    this.followAddress();
  }
}
