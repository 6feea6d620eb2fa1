// Before anything is drawn: the scheme that the address asks for, or that was chosen here before.
try {
  const asked = new URLSearchParams(location.search).get("scheme") ?? localStorage.getItem("signaware-scheme");
  if (asked === "dark" || asked === "light") document.documentElement.dataset.scheme = asked;
} catch {} // a page in a sandbox has no storage
