// Every text goes into the page as textContent: no token is ever read as HTML.
const byId = (id) => document.getElementById(id);
const parsed = (id) => JSON.parse(byId(id).textContent);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Scheme: the reader's own choice, or else that of the system

const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.scheme ?? (system.matches ? "dark" : "light")) === "dark";

function tellScheme() {
  byId("scheme").textContent = isDark() ? "☀ Light mode" : "☾ Dark mode";
  dispatchEvent(new Event("schemechange"));
}

function startScheme() {
  byId("scheme").addEventListener("click", () => {
    const chosen = isDark() ? "light" : "dark";
    document.documentElement.dataset.scheme = chosen;
    try {
      localStorage.setItem("signaware-scheme", chosen);
    } catch {} // a page in a sandbox has no storage
    tellScheme();
  });
  system.addEventListener("change", tellScheme);
  tellScheme();
}
